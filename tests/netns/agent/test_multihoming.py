"""An agent with two ways to the underlay: which is taken, and what happens when it goes silent."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.agents import AgentHost, Sections, World, connect, make_agent, make_server, world
from support.eventually import eventually
from support.flows import exchange, flow
from support.netns import PATIENCE

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]

# Agent 1 has them on one link, agent 2 on a second one beside its 192.0.2.12 and 2001:db8:6::c.
NEAR = ("198.51.100.11/24", "2001:db8:7::b/64")
FAR = ("198.51.100.12/24", "2001:db8:7::c/64")
FAILOVER_S = 15.0 * PATIENCE  # silence, the probe inside the tunnel, two more ways on the dead link
LATE_S = 1.0  # an echo that is later counts as lost, and some always are
BACK_S = 40.0 * PATIENCE  # tries after 2, 4, 8 and 16 s


@dataclass
class Homes:
    """Two agents, the second with two links."""

    net: World
    one: AgentHost
    two: AgentHost

    def first_link(self, state: str) -> None:
        """Let the second agent's first link carry nothing, beyond its own end, or all again."""
        self.net.underlay.ip("link", "set", self.net.bed.name("a2b1"), state)

    def endpoint(self) -> str:
        """Where the first agent sends to the second."""
        [peer] = self.one.status()["peers"]
        address: str = peer["endpoint"].rpartition(":")[0]
        return address.strip("[]")


@asynccontextmanager
async def homes(directory: Path, delay_ms: float, sections: Sections) -> AsyncIterator[Homes]:
    with world("mh") as net:
        server = make_server(net, 1)
        one, two = (make_agent(net, n, directory, [server], sections=sections) for n in (1, 2))
        # Otherwise the second link answers ARP for the address of the first one, and is its detour.
        for kind, value in (("arp_ignore", 1), ("arp_announce", 2)):
            two.namespace.run("sysctl", "-qw", f"net.ipv4.conf.all.{kind}={value}")
        second = net.attach(two.namespace, "x2", [])
        for port, agent, addresses in ((one.port, one, NEAR), (second, two, FAR)):
            for address in addresses:
                nodad = ("nodad",) if ":" in address else ()
                agent.namespace.ip("addr", "add", address, "dev", port, *nodad)
        connect(net, directory, delay_ms)
        server.start()
        try:
            await asyncio.gather(*(asyncio.to_thread(agent.start) for agent in (one, two)))
            yield Homes(net, one, two)
        finally:
            await server.close()


async def until_endpoint(bed: Homes, wanted: str, within_s: float) -> float:
    """Wait until the first agent sends there; returns how long (seconds) it took."""
    began = time.monotonic()
    while await asyncio.to_thread(bed.endpoint) != wanted:
        assert time.monotonic() < began + within_s, bed.one.log() + str(bed.one.status())
        await asyncio.sleep(0.1)
    return time.monotonic() - began


@pytest.mark.parametrize(
    ("locators", "expected"),
    [
        ([], "192.0.2.12"),
        ([{"prefix": "192.0.2.0/24", "priority": 9}], "198.51.100.12"),
        ([{"prefix": "2001:db8:7::/64", "priority": 0}], "2001:db8:7::c"),
    ],
    ids=["automatic", "configured", "the other family"],
)
async def test_the_lowest_priority_is_taken(
    tmp_path: Path, locators: list[dict[str, object]], expected: str
) -> None:
    async with homes(tmp_path, 0, {"underlay": {"locator": locators}}) as bed:
        for eid in bed.two.eids:
            await exchange(bed.one.namespace, bed.two.namespace, eid, 5)
            assert bed.endpoint() == expected


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4 inside", "ipv6 inside"])
async def test_a_silent_link_is_left_and_taken_again_when_it_returns(
    tmp_path: Path, family: int
) -> None:
    async with homes(tmp_path, 20, {"underlay": {"way_back_s": 2.0}}) as bed:
        one, two = bed.one, bed.two
        await exchange(one.namespace, two.namespace, two.eids[family], 5)
        assert bed.endpoint() == "192.0.2.12"
        async with flow(one.namespace, two.namespace, two.eids[family], late_s=LATE_S) as sent:
            await asyncio.sleep(0.5)
            bed.first_link("down")
            broken = len(sent.sent)
            end = time.monotonic() + FAILOVER_S
            while not any(number > broken + 100 for number in sent.round_trips):
                assert time.monotonic() < end, one.log() + str(one.status())
                await asyncio.sleep(0.05)
        # Not at once: the way back is tried now and then, and that moment may be now.
        ways = {"198.51.100.12", "2001:db8:7::c"}
        await eventually(lambda: bed.endpoint() in ways, one.log(), deadline_s=10)
        async with flow(one.namespace, two.namespace, two.eids[family], late_s=LATE_S) as back:
            bed.first_link("up")
            await until_endpoint(bed, "192.0.2.12", BACK_S)
            settled = len(back.sent)
            await asyncio.sleep(1.0)
        assert [number for number in back.lost if number > settled] == []
        # Each end has several ways to the other: the first of them to try takes both back.
        assert sum(end.status()["counters"].get("peer.way_back", 0) for end in (one, two)) >= 1
