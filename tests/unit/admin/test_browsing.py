"""Pages of peers and mappings, and the search in them."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from support import fsm
from support.operators import Cluster, serving
from wgmap.wg.keys import PublicKey
from wgmap_cluster.fsm.commands import Revoke
from wgmap_cluster.fsm.rows import Change, MappingRow, PeerRow, Table
from wgmap_cluster.replica.browsing import Wanted

MANY = 20_000


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with serving(tmp_path / "admin.sock") as cluster:
        for number in range(1, 8):
            own = (f"10.66.{number}.0/24", f"fd66::{number}/128")
            await cluster.apply(fsm.enrol(f"cpe-{number}", number, *own))
        await cluster.apply(fsm.register(2, 1, "10.66.2.0/24", "fd66::2/128"))
        await cluster.apply(fsm.register(3, 1, "10.66.3.0/24"))
        await cluster.apply(Revoke("cpe-7", fsm.ORIGIN))
        yield cluster


async def get(cluster: Cluster, path: str) -> tuple[Any, aiohttp.ClientResponse]:
    connector = aiohttp.UnixConnector(str(cluster.socket))
    async with (
        aiohttp.ClientSession("http://localhost", connector=connector) as session,
        session.get(path) as response,
    ):
        return json.loads(await response.read()), response


def next_of(response: aiohttp.ClientResponse) -> str:
    link = response.headers.get("Link", "")
    return link.partition(">")[0].removeprefix("<")


async def names(cluster: Cluster, query: str) -> list[str]:
    rows, response = await get(cluster, f"/v1/peers?{query}")
    assert response.status == 200, rows
    return [row["name"].removeprefix("cpe-") for row in rows]


async def test_pages_together_are_the_whole(cluster: Cluster) -> None:
    whole, _ = await get(cluster, "/v1/peers")
    path, pages = "/v1/peers?limit=3", []
    while path:
        rows, response = await get(cluster, path)
        assert response.headers["Total-Count"] == "7"
        pages.append(rows)
        path = next_of(response)
    assert [len(rows) for rows in pages] == [3, 3, 1]
    assert [row for rows in pages for row in rows] == whole


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("search=CPE-4", "4"),
        ("search=10.66.5.9", "5"),
        ("search=10.66.4.0/23", "45"),
        ("search=fd66::3", "3"),
        ("search=nobody", ""),
        ("state=revoked", "7"),
        ("state=registered", "23"),
        ("state=enrolled&limit=2", "14"),
        ("instance=1", ""),
        ("instance=0&search=cpe&after=cpe-5", "67"),
    ],
)
async def test_search(cluster: Cluster, query: str, found: str) -> None:
    assert "".join(await names(cluster, query)) == found


async def test_search_by_key_and_control_address(cluster: Cluster) -> None:
    view = cluster.operations.peer("cpe-6")
    key = str(PublicKey(fsm.key(6))).replace("+", "%2B")
    assert await names(cluster, f"search={key}") == ["6"]
    assert await names(cluster, f"search={view['control_address']}") == ["6"]


async def test_mappings(cluster: Cluster) -> None:
    rows, response = await get(cluster, "/v1/mappings?limit=2")
    assert [row["prefix"] for row in rows] == ["10.66.2.0/24", "10.66.3.0/24"]
    assert response.headers["Total-Count"] == "3"
    rest, _ = await get(cluster, next_of(response))
    assert [(row["prefix"], row["peer"]) for row in rest] == [("fd66::2/128", "cpe-2")]
    for search, count in (("cpe-2", 2), ("10.66.3.7", 1), ("192.0.2.11", 3), ("192.0.2.12", 0)):
        assert len((await get(cluster, f"/v1/mappings?search={search}"))[0]) == count
    one, response = await get(cluster, "/v1/mappings/0/10.66.3.0/24")
    assert one == rows[1]
    assert response.headers["ETag"] == f'"{one["version"]}"'
    assert (await get(cluster, "/v1/mappings/0/10.66.3.0/25"))[1].status == 404


@pytest.mark.parametrize(
    "query",
    [
        *("peers?limit=0", "peers?limit=1001", "peers?limit=x", "peers?state=dead"),
        *("peers?after=a&after=b", "peers?page=2", f"peers?search={'x' * 101}"),
        *("mappings?after=0", "mappings?after=x,10.0.0.0/8", "mappings?state=revoked&after=9"),
        *("mappings/0/10.66.3.1/24", "mappings/0/10.66.3.0/64", "mappings/x/10.66.3.0/24"),
        *("events?follow=2", "status?x=1"),
    ],
)
async def test_bad_queries_are_told_so(cluster: Cluster, query: str) -> None:
    problem, response = await get(cluster, f"/v1/{query}")
    assert (response.status, problem["status"]) == (400, 400)


async def test_a_walk_over_many_rows_lets_others_work(cluster: Cluster) -> None:
    """Whatever the size of the table, nothing else waits for more than a piece of it."""
    state = cluster.machine.state
    row = PeerRow(b"", bytes(4), 0, (), revoked=True)
    for number in range(MANY):
        state.tables[Table.PEERS][f"x{number}"] = row
        mapping = MappingRow("x1", b"", (), 60, 1)
        key = (0, bytes((32,)) + number.to_bytes(4))
        state.put(Change(Table.MAPPINGS, key, mapping))
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0)
            beats += 1

    task = asyncio.create_task(beat())
    try:
        peers = await cluster.operations.browser.peers(Wanted(search="x19999"))
        mappings = await cluster.operations.browser.mappings(Wanted(search="0.0.78.31"))
    finally:
        task.cancel()
    assert (peers.total, mappings.total) == (1, 1)
    assert beats > 2 * MANY / 1000


async def contacts(cluster: Cluster, query: str = "") -> tuple[Any, int]:
    view, response = await get(cluster, f"/v1/contacts{query}")
    return view, response.status


async def test_who_was_told_of_whom(cluster: Cluster) -> None:
    cluster.responders.tell("cpe-1", "cpe-2", 5.0)
    cluster.responders.tell("cpe-2", "cpe-1", 5.0, "waiting")
    cluster.responders.tell("cpe-3", "cpe-2", 1.0)
    view, status = await contacts(cluster)
    assert (status, view["servers"], view["silent"]) == (200, ["ms1"], ["ms2", "ms3"])
    pairs = [(one["agent"], one["subject"]) for one in view["contacts"]]
    assert pairs == [("cpe-3", "cpe-2"), ("cpe-2", "cpe-1"), ("cpe-1", "cpe-2")]
    (told,) = view["contacts"][1]["told"]
    assert (told["server"], told["state"]) == ("ms1", "waiting")
    assert told["ago_s"] >= 5
    for query, count in (("?limit=1", 1), ("?peer=cpe-1", 2), ("?peer=cpe-2&with=cpe-3", 1)):
        assert len((await contacts(cluster, query))[0]["contacts"]) == count


@pytest.mark.parametrize("query", ["?with=cpe-1", "?limit=501", "?limit=x", f"?peer={'n' * 64}"])
async def test_questions_about_contacts_that_are_refused(cluster: Cluster, query: str) -> None:
    assert (await contacts(cluster, query))[1] == 400
