"""Agents, a map server that behaves, real tunnels: first contact."""

import asyncio
from pathlib import Path

import pytest

from support.agents import AgentHost, Pings, ping
from support.fleet import fleet

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]

COUNT = 30


async def first_contact(one: AgentHost, other: AgentHost, kind: int) -> Pings:
    """Ping for the first time: own IPv4, own IPv6, forwarded IPv4 or forwarded IPv6."""
    family, forwarded = kind % 2, kind >= 2
    source = one.lan if forwarded else one.namespace
    target = other.lan_hosts[family] if forwarded else other.eids[family]
    return await asyncio.to_thread(ping, source, None, target, COUNT)


@pytest.mark.parametrize(("delay_ms", "rp_filter"), [(0, 1), (20, 1), (20, 0)])
async def test_nothing_of_a_first_contact_is_lost(
    tmp_path: Path, delay_ms: float, rp_filter: int
) -> None:
    async with fleet(tmp_path, delay_ms, count=5, rp_filter=rp_filter) as bed:
        one, *others = bed.agents
        for kind, other in enumerate(others):
            pings = await first_contact(one, other, kind)
            assert pings.received == COUNT, (kind, pings, one.status(), other.status())
            assert pings.first_ms is not None
            assert pings.first_ms < 1000  # a handshake that was repeated takes 5 s
        for other in others:
            for mine, theirs in zip(one.eids, other.eids, strict=True):
                back = await asyncio.to_thread(ping, other.namespace, theirs, mine, 3)
                assert back.received == 3


@pytest.mark.parametrize("late_s", [0.03, 0.3])
async def test_a_late_push_costs_no_packet(tmp_path: Path, late_s: float) -> None:
    async with fleet(tmp_path, 5) as bed:
        bed.server.push_delay_s = late_s
        pings = await first_contact(bed.one, bed.two, 0)
        assert pings.received == COUNT
        assert pings.first_ms is not None
        assert pings.first_ms < 2000


async def test_both_pulling_at_once_loses_nothing(tmp_path: Path) -> None:
    async with fleet(tmp_path, 20) as bed:
        both = await asyncio.gather(
            first_contact(bed.one, bed.two, 0), first_contact(bed.two, bed.one, 1)
        )
        assert [pings.received for pings in both] == [COUNT, COUNT]


async def test_a_hundred_packets_are_held_and_more_are_dropped(tmp_path: Path) -> None:
    async with fleet(tmp_path, 5) as bed:
        bed.server.silent = True
        target = bed.two.eids[0]
        flood = asyncio.to_thread(
            bed.one.namespace.run,
            *("ping", "-n", "-c", "150", "-i", "0.002", "-W", "8", target),
            timeout_s=30,
            check=False,
        )
        waiting = asyncio.create_task(flood)
        await asyncio.sleep(1.0)
        bed.server.silent = False
        text = await waiting
        assert "100 received" in text, text
        assert bed.one.status()["counters"]["held.dropped_destination_full"] == 50
