"""The API's description (OpenAPI 3.1), made from the table of routes and the types they name."""

import inspect
import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, TypeAlias

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from wgmap import __version__
from wgmap_cluster.admin.problems import CONTENT_TYPE
from wgmap_cluster.admin.routes import JSON, Route

Json: TypeAlias = dict[str, Any]
# What any request can end with; the last two only over TCP.
ALWAYS = (
    *(HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN),
    HTTPStatus.TOO_MANY_REQUESTS,
)
NAME = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"}
PARAMETERS: dict[str, Json] = {
    "name": NAME,
    "instance": {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
    "address": {"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]},
    "length": {"type": "integer", "minimum": 0, "maximum": 128},
}


class Problem(TypedDict):
    """What went wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str


class ProblemAt(Problem, total=False):
    """What went wrong, and with which item of several (from 0)."""

    position: int


def describe(routes: Iterable[Route]) -> Json:
    """Return the document."""
    schemas: Json = {}
    paths: Json = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "wgmap admin API",
            "version": __version__,
            "summary": "Operate a wgmap cluster through any of its servers.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, schemas: Json) -> Json:
    summary, _, more = inspect.cleandoc(route.handler.__doc__ or "").partition("\n")
    operation: Json = {
        "operationId": route.handler.__name__.strip("_"),
        "summary": summary.replace("``", "`"),
        "x-role": route.role.name.lower(),
        "parameters": [*_path(route.path), *_query(route), *_headers(route)],
        "responses": _responses(route, schemas),
    }
    if more.strip():
        operation["description"] = " ".join(more.split()).replace("``", "`")
    if route.body is not None:
        schema = _schema(route.body, schemas, "validation")
        content = {route.body_media: {"schema": schema if route.body_media == JSON else {}}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _path(path: str) -> list[Json]:
    names = re.findall(r"{(\w+)}", path)
    return [{"name": n, "in": "path", "required": True, "schema": PARAMETERS[n]} for n in names]


def _query(route: Route) -> list[Json]:
    return [
        {
            "name": one.name,
            "in": "query",
            "description": one.text,
            "required": one.required,
            "schema": one.schema,
        }
        for one in route.query
    ]


def _headers(route: Route) -> list[Json]:
    if not route.if_match:
        return []
    schema = {"type": "string", "pattern": '^("[0-9]{1,18}"|\\*)$'}
    said = "Only if its ETag is still this one."
    return [{"name": "If-Match", "in": "header", "description": said, "schema": schema}]


def _responses(route: Route, schemas: Json) -> Json:
    schema = {} if route.answer is None else _schema(route.answer, schemas, "serialization")
    good = {
        str(int(status)): {
            "description": status.phrase,
            "content": {route.media: {"schema": schema}},
        }
        for status in route.successes
    }
    problem = {"content": {CONTENT_TYPE: {"schema": _schema(ProblemAt, schemas, "serialization")}}}
    statuses = {*ALWAYS, *route.refusals}
    if route.body is not None:
        statuses.add(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    bad = {str(int(s)): {"description": s.phrase, **problem} for s in sorted(statuses)}
    return good | bad


def _schema(kind: Any, schemas: Json, mode: Any) -> Json:
    """Return the schema of a type; what it is made of goes into ``schemas``."""
    template = "#/components/schemas/{model}"
    schema = TypeAdapter(kind).json_schema(ref_template=template, mode=mode)
    schemas.update(schema.pop("$defs", {}))
    if schema.get("type") != "object" or "title" not in schema:
        return schema
    title = schema["title"]
    schemas[title] = schema
    return {"$ref": template.format(model=title)}
