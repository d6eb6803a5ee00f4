"""Agents, a map server that behaves, real tunnels: first contact."""

import asyncio
from pathlib import Path

import pytest

from support.agents import AgentHost
from support.fleet import fleet
from support.flows import Flow, exchange
from support.netns import wait_until

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]

COUNT = 50


async def first_contact(one: AgentHost, other: AgentHost, kind: int) -> Flow:
    """Send the first packets: own IPv4, own IPv6, forwarded IPv4 or forwarded IPv6."""
    family = kind % 2
    if kind >= 2:
        return await exchange(one.lan, other.lan, other.lan_hosts[family], COUNT)
    return await exchange(one.namespace, other.namespace, other.eids[family], COUNT)


def told(*agents: AgentHost) -> str:
    """Say what agents counted, for a failing test."""
    return "; ".join(f"{agent.number}: {agent.status()['counters']}" for agent in agents)


@pytest.mark.parametrize(("delay_ms", "rp_filter"), [(0, 1), (20, 1), (20, 0)])
async def test_nothing_of_a_first_contact_is_lost(
    tmp_path: Path, delay_ms: float, rp_filter: int
) -> None:
    async with fleet(tmp_path, delay_ms, count=5, rp_filter=rp_filter) as bed:
        one, *others = bed.agents
        for kind, other in enumerate(others):
            first = await first_contact(one, other, kind)
            assert first.lost == [], (kind, told(one, other))
            assert first.first_ms < 1000  # a handshake that was repeated takes 5 s
        for kind, other in enumerate(others):
            back = await first_contact(other, one, kind)
            assert back.lost == [], (kind, told(one, other))


@pytest.mark.parametrize("late_s", [0.05, 0.4])
async def test_a_late_push_costs_nothing(tmp_path: Path, late_s: float) -> None:
    """Also where the peer is kicked: until its tunnel stands all that is sent comes to us."""
    async with fleet(tmp_path, 5) as bed:
        bed.server.push_delay_s = late_s
        first = await first_contact(bed.one, bed.two, 0)
        assert first.lost == [], told(bed.one, bed.two)
        assert first.first_ms < 3000
        assert (await first_contact(bed.one, bed.two, 1)).lost == []


async def test_both_pulling_at_once_costs_nothing(tmp_path: Path) -> None:
    async with fleet(tmp_path, 20) as bed:
        one, two = bed.one, bed.two
        flows = await asyncio.gather(first_contact(one, two, 0), first_contact(two, one, 1))
        assert [flow.lost for flow in flows] == [[], []], told(one, two)
        assert max(flow.first_ms for flow in flows) < 2000
        assert (await first_contact(one, two, 0)).lost == []


async def test_a_hundred_packets_are_held_and_more_are_dropped(tmp_path: Path) -> None:
    async with fleet(tmp_path, 5) as bed:
        one, two = bed.one, bed.two
        bed.server.silent = True
        held = asyncio.create_task(
            exchange(one.namespace, two.namespace, two.eids[0], 150, interval_s=0.001)
        )
        await asyncio.to_thread(
            wait_until,
            lambda: one.status()["counters"].get("held.dropped_destination_full", 0) == 50,
            "all came out of the TUN",
        )
        bed.server.silent = False
        flow = await held
        assert flow.lost == list(range(100, 150))
