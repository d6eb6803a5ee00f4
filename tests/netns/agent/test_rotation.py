"""The data key rotates under traffic, over real tunnels; the agent is killed meanwhile."""

import asyncio
import ipaddress
import json
import logging
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from support.agents import AgentHost
from support.fleet import Fleet, fleet
from support.flows import Flow, exchange, flow
from support.netns import PATIENCE, netbed
from wgmap_agent.runner import keys
from wgmap_agent.runner.arrived import Arrived

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]

_LOG = logging.getLogger(__name__)
SILENCE_MOST = 20  # datagrams in a row, 100 a second: 200 ms
OVER_S = 30.0 * PATIENCE
LATE_S = 1.0  # after its last datagram a flow waits so long for what must be counted as lost then


async def contact(bed: Fleet) -> None:
    for target in bed.two.eids:
        assert (await exchange(bed.one.namespace, bed.two.namespace, target, 5)).lost == []


def gap(one: Flow) -> int:
    """Return the greatest number of datagrams in a row that were lost."""
    longest = run = 0
    for number in one.sent:
        run = run + 1 if number not in one.round_trips else 0
        longest = max(longest, run)
    return longest


async def rotate(agent: AgentHost) -> str:
    """Begin a rotation; returns the new key."""
    text = await asyncio.to_thread(agent.ask, "rotate-key", "--json")
    key: str = json.loads(text)["key"]
    return key


def data_keys(agent: AgentHost) -> list[str]:
    """Return the keys of the data interfaces that the agent has.

    One that goes away between the two questions has none: whoever waits asks again.
    """
    links = agent.namespace.ip("-o", "link")
    present = [name for name in (agent.data, f"{agent.data}2") if f"{name}:" in links]
    asked = (("wg", "show", name, "public-key") for name in present)
    return [key for argv in asked if (key := agent.namespace.run(*argv, check=False).strip())]


async def rotated(agent: AgentHost, key: str) -> None:
    """Wait until the only data interface has this key; the loop, which has flows, goes on."""
    end = time.monotonic() + OVER_S
    while await asyncio.to_thread(data_keys, agent) != [key]:
        assert time.monotonic() < end, f"not rotated\n{agent.log()}"
        await asyncio.sleep(0.2)


def data_peer(agent: AgentHost) -> str:
    [peer] = agent.status()["peers"]
    key: str = peer["key"]
    return key


@asynccontextmanager
async def flows(bed: Fleet) -> AsyncIterator[None]:
    """Have a flow each way, one of each family; neither is silent for long."""
    one, two = bed.one, bed.two
    async with (
        flow(one.namespace, two.namespace, two.eids[0], late_s=LATE_S) as there,
        flow(two.namespace, one.namespace, one.eids[1], late_s=LATE_S) as back,
    ):
        await asyncio.sleep(0.5)
        yield
        await asyncio.sleep(0.5)
    _LOG.info("lost in a row: %d there, %d back", gap(there), gap(back))
    assert gap(there) <= SILENCE_MOST
    assert gap(back) <= SILENCE_MOST


def assert_no_repairs(bed: Fleet) -> None:
    for agent in (bed.one, bed.two):
        counters = agent.status()["counters"]
        assert "peer.kicked" not in counters
        assert "peer.looked_for" not in counters


@pytest.mark.parametrize("delay_ms", [0, 20])
async def test_an_established_flow_is_hardly_silent(tmp_path: Path, delay_ms: float) -> None:
    async with fleet(tmp_path, delay_ms) as bed:
        await contact(bed)
        for _ in range(2):  # there, and back to the first interface
            async with flows(bed):
                key = await rotate(bed.one)
                await rotated(bed.one, key)
            assert data_peer(bed.two) == key
        assert_no_repairs(bed)


@pytest.mark.parametrize("delay_ms", [0, 20])
async def test_both_ends_rotate_at_once(tmp_path: Path, delay_ms: float) -> None:
    """Both have two devices then, so that both tunnels carry what is on its way."""
    async with fleet(tmp_path, delay_ms) as bed:
        await contact(bed)
        async with flows(bed):
            new = await asyncio.gather(rotate(bed.one), rotate(bed.two))
            await asyncio.gather(*map(rotated, (bed.one, bed.two), new))
        assert (data_peer(bed.two), data_peer(bed.one)) == tuple(new)
        assert_no_repairs(bed)


async def test_what_comes_in_over_an_interface_is_told_at_once() -> None:
    with netbed("ar") as bed:
        namespace = bed.namespace("n")
        namespace.ip("link", "set", "lo", "up")
        with namespace.entered():
            arrived = Arrived("lo")
            sender = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        with arrived, sender:
            assert await arrived.wait(0.0) == set()
            waiting = asyncio.create_task(arrived.wait(OVER_S))
            await asyncio.sleep(0)
            sender.sendto(b"", ("::1", 9))
            assert await waiting == {ipaddress.ip_address("::1")}


STEPS_S = (0.0, 0.15)


@pytest.mark.parametrize("after_s", STEPS_S)
async def test_an_agent_killed_in_the_middle_ends_with_one_key_and_its_tunnels(
    tmp_path: Path, after_s: float
) -> None:
    """Killed so long after it began: with the new key's file alone, both devices, in the switch."""
    async with fleet(tmp_path, 20) as bed:
        one, two = bed.one, bed.two
        await contact(bed)
        key = await rotate(one)
        await asyncio.sleep(after_s)  # what is tested is any moment, not a condition
        await asyncio.to_thread(one.kill)
        await asyncio.to_thread(one.start)
        await rotated(one, key)
        for source, target in ((one, two), (two, one)):
            for eid in target.eids:
                sent = await exchange(source.namespace, target.namespace, eid, 20)
                assert sent.lost == [], one.log() + two.log()
        assert data_peer(two) == key


async def test_a_key_that_changed_unannounced_is_found_by_silence(tmp_path: Path) -> None:
    """The agent lost its state and its interfaces; nobody pushes, for no server knew the asker."""
    async with fleet(tmp_path, 20) as bed:
        one, two = bed.one, bed.two
        await contact(bed)
        before = data_peer(one)
        peer = next(p for p in bed.server.peers.values() if p.prefixes == two.prefixes)
        peer.subscribers.clear()
        await asyncio.to_thread(two.kill)
        await asyncio.to_thread(two.ask, "down", "--config", str(two.config))
        (two.directory / "state" / keys.DATA_KEY).unlink()
        await asyncio.to_thread(two.start)
        peer.subscribers.clear()
        async with flow(one.namespace, two.namespace, two.eids[0]) as found:
            end = time.monotonic() + OVER_S
            while not found.round_trips:
                assert time.monotonic() < end, one.log()
                await asyncio.sleep(0.05)
        assert data_peer(one) != before
        assert (await exchange(two.namespace, one.namespace, one.eids[1], 10)).lost == []
