"""Whatever a route is given that makes no sense: a problem that says so, and nothing is done."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from support import fsm
from support.operators import Cluster, serving
from wgmap_cluster.admin.routes import BYTES, Route
from wgmap_cluster.admin.server import AdminServer

BODIES = {
    "nothing": b"",
    "null": b"null",
    "a list": b"[]",
    "a number": b"1",
    "a text": b'"x"',
    "half of it": b'{"name": "b1"',
    "no UTF-8": b"\xff\xfe",
    "half a character": b'{"\\ud800": 1}',
    "deep": b"[" * 10_000,
    "a number of 5000 digits": b'{"name": ' + b"1" * 5000 + b"}",
    "no number": b'{"name": NaN}',
    "an unknown key": b'{"frobnicate": 1}',
    "too much": b" " * (1 << 17),
}
# What none of the routes has; of a path everything but the name is known.
WRONG_VALUES = ("x=1", "instance=x", "limit=-1", "since=1e3", "follow=2", "seal_to=x")


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with serving(tmp_path / "admin.sock") as cluster:
        await cluster.apply(fsm.enrol("a1", 1, "10.66.1.0/24"))
        yield cluster


@pytest.fixture
async def http(cluster: Cluster) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.UnixConnector(str(cluster.socket))
    async with aiohttp.ClientSession("http://localhost", connector=connector) as session:
        yield session


def routes(cluster: Cluster) -> list[Route]:
    return AdminServer(cluster.operations, cluster.socket).routes()


def path(route: Route) -> str:
    return re.sub(r"\{(\w+)\}", lambda at: "1" if at[1] == "instance" else "a1", route.path)


async def refused(
    cluster: Cluster, http: aiohttp.ClientSession, method: str, where: str, body: bytes | None
) -> None:
    before = list(cluster.machine.state.rows())
    async with http.request(method, where, data=body) as response:
        told = f"{method} {where} {body!r:.40}: {response.status}"
        assert 400 <= response.status < 500, told
        assert response.content_type == "application/problem+json", told
        assert (await response.json())["detail"], told
    assert list(cluster.machine.state.rows()) == before, told


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_every_body_that_makes_no_sense(
    cluster: Cluster, http: aiohttp.ClientSession, body: bytes
) -> None:
    wanting = [route for route in routes(cluster) if route.body is not None]
    assert len(wanting) >= 6
    for route in wanting:
        # A restore is a line of JSON, and then the backup.
        data = body.replace(b"\n", b"") + b"\n" if route.body_media == BYTES else body
        await refused(cluster, http, route.method, path(route), data)


@pytest.mark.parametrize("query", WRONG_VALUES)
async def test_every_query_that_makes_no_sense(
    cluster: Cluster, http: aiohttp.ClientSession, query: str
) -> None:
    for route in routes(cluster):
        if route.method == "GET" and route.path != "/v1/openapi.json":
            await refused(cluster, http, "GET", f"{path(route)}?{query}", None)
