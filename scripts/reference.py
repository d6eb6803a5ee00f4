"""Write docs/reference/ from the code: configuration keys, metrics, routes of the API.

``--check`` writes nothing and ends with 1 where a file is not what would be written.
"""

import argparse
import ipaddress
import sys
import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client.core import Metric
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from wgmap.addresses import Endpoint
from wgmap.metrics.families import Catalogue, Histogram
from wgmap.wg.keys import PublicKey
from wgmap_agent.config import AgentConfig
from wgmap_agent.engine.types import EngineStatus
from wgmap_agent.runner import catalogue as agent_catalogue
from wgmap_agent.runner import measures as agent_measures
from wgmap_cluster.admin.server import AdminServer
from wgmap_cluster.config import ServerConfig
from wgmap_cluster.fsm.machine import Machine
from wgmap_cluster.replica import catalogue, measures
from wgmap_cluster.replica.operations import Operations

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"
MADE = "<!-- Made by scripts/reference.py from the code: change it there. -->\n\n"
KINDS: dict[object, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Path: "path",
    PublicKey: "key",
    Endpoint: "ADDRESS:PORT",
    ipaddress.IPv4Address: "address",
    ipaddress.IPv6Address: "IPv6 address",
    ipaddress.IPv4Network: "prefix",
    ipaddress.IPv6Network: "IPv6 prefix",
    type(None): "",
}
BOUNDS = {"gt": "above", "ge": "from", "lt": "below", "le": "to"}


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Write a table; bars in cells are escaped."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |\n" for row in lines)


# ------------------------------------------------------------------------------- configuration


def configuration() -> str:
    """Describe the keys of both programs' files."""
    return (
        MADE
        + "# Configuration\n\nTOML. An unknown key, or a value out of its bounds, is an error that"
        " names it. A key without a default must be given.\n\n## wgmap-server\n\n"
        + "\n".join(sections(ServerConfig, ""))
        + "\n## wgmap-agent\n\n`wgmap peer add` prints such a file, with comments.\n\n"
        + "\n".join(sections(AgentConfig, ""))
    )


def sections(model: type[BaseModel], path: str) -> Iterator[str]:
    """Describe a section and those inside it."""
    rows = []
    inner: list[tuple[str, type[BaseModel]]] = []
    for name, info in model.model_fields.items():
        section, several = _section(info.annotation)
        here = f"{path}.{name}" if path else name
        if section is None:
            rows.append((f"`{name}`", _kind(info), _default(info), _meaning(here, info)))
        else:
            inner.append((f"[[{here}]]" if several else f"[{here}]", section))
    if rows:
        yield table(("key", "value", "default", "meaning"), rows)
    for title, section in inner:
        said = " ".join((section.__doc__ or "").partition(":")[2].split())
        yield f"### `{title}`\n\n{said[:1].upper()}{said[1:]}\n".replace("``", "`")
        yield from sections(section, title.strip("[]"))


def _section(annotation: object) -> tuple[type[BaseModel] | None, bool]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        found = (_section(each)[0] for each in typing.get_args(annotation))
        return next(filter(None, found), None), False
    if typing.get_origin(annotation) is tuple:
        return _section(typing.get_args(annotation)[0])[0], True
    return None, False


def _kind(info: FieldInfo) -> str:
    kind = _named(info.annotation)
    bounds = [
        f"{word} {value:g}"
        for name, word in BOUNDS.items()
        for each in info.metadata
        if (value := getattr(each, name, None)) is not None
    ]
    return f"{kind}, {' '.join(bounds)}" if bounds else kind


def _named(annotation: object) -> str:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _named(typing.get_args(annotation)[0])
    if origin is tuple:
        return f"list of {_named(typing.get_args(annotation)[0])}"
    if origin in (typing.Union, types.UnionType):
        names = [_named(each) for each in typing.get_args(annotation)]
        if {"address", "prefix"} & set(names):
            names = [each for each in names if not each.startswith("IPv6")]
        return " or ".join(filter(None, names))
    return KINDS[annotation]


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return ""
    value = info.default
    if value is None or value == ():
        return "absent"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _meaning(path: str, info: FieldInfo) -> str:
    if not info.description:
        sys.exit(f"{path} has no description")
    return info.description


# ------------------------------------------------------------------------------------- metrics


def metrics() -> str:
    """Describe the metrics of both daemons."""
    state = EngineStatus(registered=False, servers=(), peers=(), counters={})
    agent = agent_measures.families(state, Histogram(), {})
    servers = (catalogue.RESPONDER, catalogue.REPLICA, catalogue.LOG)
    return (
        MADE + "# Metrics\n\n`GET /metrics` at `metrics.listen`, in Prometheus' text format, beside"
        " `GET /health/live` and `GET /health/ready` (see [operations](../operations.md)). What"
        " counts begins at 0 when its process starts. The names in the last column are those of"
        " `GET /v1/counters` and of `wgmap-agent status`.\n\n## wgmap-server\n\n"
        + _metrics(measures.families(measures.Seen()), *servers)
        + "\n## wgmap-agent\n\n"
        + _metrics(agent, agent_catalogue.COUNTERS)
    )


def _metrics(families: Iterable[Metric], *catalogues: Catalogue) -> str:
    sources = {one.text: one for catalogue in catalogues for one in catalogue}
    rows = []
    for family in families:
        source = sources.get(family.documentation)
        suffix = "_total" if family.type == "counter" else ""
        label = f"{{{source.label}}}" if source and source.label else ""
        counter = f"`{source.name}`" if source else ""
        rows.append((f"`{family.name}{suffix}{label}`", family.type, family.documentation, counter))
    return table(("metric", "type", "meaning", "counter"), rows)


# ----------------------------------------------------------------------------------------- API


def api() -> str:
    """Describe the routes of the admin API."""
    operations = Operations("ms1", Machine(), *(None,) * 3)  # type: ignore[arg-type]  # never asked
    rows = []
    for route in AdminServer(operations, Path("/nowhere")).routes():
        summary = " ".join((route.handler.__doc__ or "").partition("\n")[0].split())
        query = ", ".join(f"`{one.name}`" for one in route.query)
        body = f"`{route.body.__name__}`" if route.body else ""
        what = (f"`{route.method}`", f"`{route.path}`", route.role.name.lower())
        rows.append((*what, summary.replace("``", "`"), query, body))
    head = ("method", "path", "role", "what", "query", "body")
    return (
        MADE + "# Admin API\n\nOn the admin socket, and over TLS where `[admin]` says so (see"
        " [operations](../operations.md)). Schemas of bodies and answers are in the description"
        " that a server gives: `GET /v1/openapi.json` (OpenAPI 3.1).\n\n"
        + table(head, sorted(rows, key=lambda row: row[1]))
    )


def main() -> int:
    """Write or check the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    pages = {"configuration.md": configuration(), "metrics.md": metrics(), "api.md": api()}
    for name, text in pages.items():
        path = FOLDER / name
        if check and (not path.exists() or path.read_text() != text):
            stale.append(str(path))
        if not check:
            FOLDER.mkdir(exist_ok=True)
            path.write_text(text)
    if stale:
        sys.stderr.write(f"not up to date, run scripts/reference.py: {', '.join(stale)}\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
