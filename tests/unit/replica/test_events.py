"""Events: what they tell of, and what becomes of clients that do not read."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from support import fsm
from support.operators import Cluster, found, serving, until
from wgmap.errors import UnavailableError
from wgmap_cluster.fsm.commands import Expire, Seen, SetPeer
from wgmap_cluster.replica.events import MAX_CLIENTS, MAX_RECENT, MAX_WAITING


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with serving(tmp_path / "admin.sock") as cluster:
        await cluster.apply(fsm.enrol("a1", 1, "10.66.1.0/24"))
        yield cluster


def said(cluster: Cluster) -> list[tuple[str, str, str]]:
    return [
        (event["event"], event["subject"], event["detail"])
        for event in cluster.operations.events.recent()
    ]


async def test_a_peers_life(tmp_path: Path) -> None:
    cluster = await found(tmp_path / "unused.sock")
    await cluster.apply(fsm.enrol("a1", 1, "10.66.1.0/24"))
    await cluster.apply(fsm.register(1, 1, "10.66.1.1/32", ttl=1))
    await cluster.apply(fsm.register(1, 1, "10.66.1.1/32", ttl=1))
    await cluster.apply(Seen(("a1",)))
    await cluster.apply(fsm.register(1, 2, "10.66.1.1/32", ttl=0))
    await cluster.apply(Seen(("a1",)))
    await cluster.apply(fsm.register(1, 3, "10.66.1.1/32", ttl=1))
    await cluster.apply(Expire(999.0, ("a1",)))
    await cluster.apply(SetPeer("a1", fsm.ORIGIN, new_name="b1"))
    assert [each[:2] for each in said(cluster)][1:] == [
        ("enrolled", "a1"),
        ("registered", "a1"),
        ("withdrawn", "a1"),
        ("registered", "a1"),
        ("expired", "a1"),
        ("changed", "a1"),
    ]
    assert said(cluster)[2][2] == "10.66.1.1/32"


async def test_who_leads(cluster: Cluster) -> None:
    await until(lambda: ("leader", "ms1", "") in said(cluster))
    cluster.log.leader = None
    await until(lambda: said(cluster)[-1] == ("no leader", "", "after ms1"))
    cluster.log.leader = "ms2"
    await until(lambda: said(cluster)[-1] == ("leader", "ms2", ""))


async def test_what_is_kept_is_bounded(cluster: Cluster) -> None:
    for nonce in range(1, MAX_RECENT + 10):
        await cluster.apply(fsm.register(1, nonce, "10.66.1.1/32", data=nonce % 200))
    assert len(cluster.operations.events.recent()) == MAX_RECENT


async def test_a_slow_client_is_dropped_after_what_it_still_gets(cluster: Cluster) -> None:
    with cluster.operations.events.subscribe() as slow:
        for nonce in range(1, MAX_WAITING + 50):
            await cluster.apply(fsm.register(1, nonce, "10.66.1.1/32", data=nonce % 200))
        assert slow.dropped
        events = await slow.next(1.0)
        assert events is not None
        assert len(events) == MAX_WAITING
        assert await slow.next(1.0) is None


async def test_only_so_many_clients(cluster: Cluster) -> None:
    hub = cluster.operations.events
    held = [hub.subscribe() for _ in range(MAX_CLIENTS)]
    for each in held:
        each.__enter__()
    with pytest.raises(UnavailableError), hub.subscribe():
        pass
    held[0].__exit__(None, None, None)
    with hub.subscribe() as one:
        assert await one.next(0.01) == []
    for each in held[1:]:
        each.__exit__(None, None, None)
    assert hub.followers == 0


async def test_a_follower_gets_lines_and_the_end_when_the_server_stops(tmp_path: Path) -> None:
    async with serving(tmp_path / "admin.sock") as cluster:
        connector = aiohttp.UnixConnector(str(cluster.socket))
        session = aiohttp.ClientSession("http://localhost", connector=connector)
        response = await session.get("/v1/events?follow=1")
        assert response.content_type == "application/jsonl"
        await until(lambda: cluster.operations.events.followers == 1)
        await cluster.apply(fsm.enrol("a1", 1, "10.66.1.0/24"))
        lines: list[dict[str, str]] = []
        while not any(line.get("event") == "enrolled" for line in lines):
            lines.append(json.loads(await response.content.readline()))
    async with asyncio.timeout(5), session:
        await response.content.read()
        response.close()
    assert cluster.operations.events.followers == 0


async def test_restored_rows_are_no_events(cluster: Cluster, tmp_path: Path) -> None:
    pieces = list(await cluster.operations.archive.backup(("ann", "then"), None))
    other = await found(tmp_path / "unused.sock")

    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    await other.operations.archive.restore(b"d" * 32, (), body(), ("root", "now"))
    assert [event for event, _, _ in said(other)] == ["founded", "restored"]


async def test_servers_lost_and_found_are_told(cluster: Cluster) -> None:
    await until(lambda: ("leader", "ms1", "") in said(cluster))  # it was looked at
    cluster.log.lose("ms3")
    await until(lambda: said(cluster)[-1] == ("unreachable", "ms3", ""))
    cluster.log.hear("ms3", 1)
    await until(lambda: said(cluster)[-1] == ("reachable", "ms3", ""))
