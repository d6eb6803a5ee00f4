"""What the API consists of: one table entry a route, from which server and description are made."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum
from http import HTTPStatus
from typing import Any, TypeAlias

from aiohttp import web

from wgmap.config import Section

JSON = "application/json"
JSON_LINES = "application/jsonl"
BYTES = "application/octet-stream"
Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Role(IntEnum):
    """What a caller may do; each may do what those before it may."""

    READ = 1
    OPERATE = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class Query:
    """A parameter of the query; ``schema`` is JSON Schema."""

    name: str
    text: str
    schema: dict[str, Any]
    required: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """One operation. Its handler's docstring is its summary.

    ``answer`` is the type of what a success returns (None: a stream of ``media``), ``refusals``
    the statuses of problems beside those that every route has.
    """

    method: str
    path: str
    handler: Handler
    role: Role
    answer: Any = None
    body: type[Section] | None = None
    query: tuple[Query, ...] = ()
    successes: tuple[HTTPStatus, ...] = (HTTPStatus.OK,)
    refusals: tuple[HTTPStatus, ...] = ()
    media: str = JSON
    if_match: bool = False
    body_media: str = JSON

    def to_aiohttp(self) -> web.RouteDef:
        """Return it for aiohttp."""
        return web.route(self.method, self.path, self.handler)


CHANGES = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.SERVICE_UNAVAILABLE)


def number(least: int, most: int) -> dict[str, Any]:
    """Return the schema of a whole number."""
    return {"type": "integer", "minimum": least, "maximum": most}
