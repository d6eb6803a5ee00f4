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


def held_by(one: AgentHost) -> int:
    """Count what an agent has had in its hands until now."""
    counters: dict[str, int] = one.status()["counters"]
    return counters.get("held.packets", 0)


def held_are_lost(one: AgentHost, flow: Flow, before: int = 0) -> bool:
    """Tell whether a packet was lost that the agent had in its hands."""
    held = held_by(one) - before
    return any(number < held for number in flow.lost)


@pytest.mark.parametrize(("delay_ms", "rp_filter"), [(0, 1), (20, 1), (20, 0)])
async def test_nothing_of_a_first_contact_is_lost(
    tmp_path: Path, delay_ms: float, rp_filter: int
) -> None:
    """Without any delay the push may lose its race: then only what is held is sure."""
    async with fleet(tmp_path, delay_ms, count=5, rp_filter=rp_filter) as bed:
        one, *others = bed.agents
        for kind, other in enumerate(others):
            held = held_by(one)
            first = await first_contact(one, other, kind)
            if delay_ms:
                assert first.lost == [], (kind, one.status(), other.status())
            assert not held_are_lost(one, first, held)
            assert first.first_ms < 1000  # a handshake that was repeated takes 5 s
        for kind, other in enumerate(others):
            back = await first_contact(other, one, kind)
            assert back.lost == []


@pytest.mark.parametrize("late_s", [0.05, 0.4])
async def test_a_late_push_costs_none_of_the_held(tmp_path: Path, late_s: float) -> None:
    """What went to WireGuard itself after the route was there is lost where the peer is kicked."""
    async with fleet(tmp_path, 5) as bed:
        bed.server.push_delay_s = late_s
        first = await first_contact(bed.one, bed.two, 0)
        assert not held_are_lost(bed.one, first)
        assert first.first_ms < 3000
        assert (await first_contact(bed.one, bed.two, 1)).lost == []


async def test_both_pulling_at_once_costs_none_of_the_held(tmp_path: Path) -> None:
    async with fleet(tmp_path, 20) as bed:
        one, two = bed.one, bed.two
        flows = await asyncio.gather(first_contact(one, two, 0), first_contact(two, one, 1))
        assert not held_are_lost(one, flows[0])
        assert not held_are_lost(two, flows[1])
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
