"""The API's description is the API's: every route is in it, and it is a valid document."""

import re
from pathlib import Path

import pytest
from aiohttp import web

from support.operators import found
from wgmap_cluster.admin import openapi, page
from wgmap_cluster.admin.routes import Role, Route
from wgmap_cluster.admin.server import AdminServer, make_app


@pytest.fixture
async def routes(tmp_path: Path) -> list[Route]:
    cluster = await found(tmp_path / "admin.sock")
    return AdminServer(cluster.operations, cluster.socket).routes()


async def test_what_is_served_is_described_and_the_other_way_round(routes: list[Route]) -> None:
    served = {
        (route.method, route.resource.canonical)
        for route in make_app(routes).router.routes()
        if route.resource is not None and route.resource.canonical not in page.PATHS
    }
    document = openapi.describe(routes)
    described = {
        (method.upper(), path) for path, item in document["paths"].items() for method in item
    }
    assert {each for each in served if each[0] != "HEAD"} == described
    make_app([*routes, Route("PUT", "/v1/new", _nothing, Role.READ)])
    assert len(described) > 20


async def _nothing(_request: web.Request) -> web.Response:
    """Do nothing."""
    return web.Response()


async def test_every_reference_leads_somewhere(routes: list[Route]) -> None:
    document = openapi.describe(routes)
    text = str(document)
    named = set(re.findall(r"#/components/schemas/(\w+)", text))
    assert named <= set(document["components"]["schemas"])
    assert {"PeerView", "ProblemAt", "StatusView"} <= named
    for path, item in document["paths"].items():
        for operation in item.values():
            assert operation["summary"].endswith((".", ";")) or operation["summary"], path
            assert operation["x-role"] in {"read", "operate", "admin"}


async def test_changes_want_more_than_reading(routes: list[Route]) -> None:
    for route in routes:
        if route.method != "GET":
            assert route.role > Role.READ, route.path
    assert {route.role for route in routes if route.path == "/v1/backup"} == {Role.ADMIN}
