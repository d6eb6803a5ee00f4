"""Prefixes inside others' prefixes: an agent's engine and a responder's service, and nothing else.

Peers map and unmap prefixes of one small space in any order, while the agent sends packets to it
and so holds some of them, whole or narrowed. What it holds must always be what the tables say.
"""

import ipaddress
import os
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import agent_values
from support.tables import (
    CONTROL,
    Network,
    control,
    enrolled,
    key,
    mapped,
    sent,
    server,
    told,
    unmapped,
)
from wgmap.addresses import Endpoint, IPNetwork, prefix_to_bytes
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.engine import Engine
from wgmap_agent.engine.packets import echo_request
from wgmap_agent.engine.types import Action, SavedState, Send, ServerInfo
from wgmap_cluster.feed import Barrier
from wgmap_cluster.fsm.versions import next_version
from wgmap_cluster.responder.actions import Action as ServiceAction
from wgmap_cluster.responder.mappings import Place

SPACE = ipaddress.IPv4Network("10.66.0.0/28")
OWN = ipaddress.ip_network("10.66.200.1/32")
SERVER = ServerInfo(  # as ``tables.server`` has it
    "ms1",
    PublicKey(key("control ms1")),
    Endpoint(ipaddress.ip_address("192.0.2.1"), 51822),
    CONTROL + 0x1001,
)
IDENTITY = replace(
    agent_values.IDENTITY,
    instance=0,
    prefixes=(OWN,),
    overlay=(ipaddress.ip_network("10.66.0.0/16"),),
    control_address=ipaddress.IPv6Address(control("a1")),
    servers=(SERVER,),
)
OWNERS = ("a2", "a3", "a4")
EXAMPLES = int(os.environ.get("WGMAP_SIM_EXAMPLES", "60"))
SETTLE_S = 2.0  # pushes are there at once; one that is lost comes again within it


class Pair:
    """The agent a1 and the service, joined; other agents acknowledge what they are told."""

    def __init__(self) -> None:
        rows = [enrolled(name) for name in ("a1", *OWNERS)]
        self.network = Network(*rows, server("ms1"), mapped("a1", str(OWN)))
        self.engine = Engine(IDENTITY, SavedState(), random.Random(1))
        self.versions: dict[IPNetwork, int] = {}
        self._said(self.engine.start(self.network.now, agent_values.UNDERLAY))
        agent_values.read_nothing(self.engine)
        self.run()

    # -------------------------------------------------------------------------- what happens

    def map(self, owner: str, prefix: IPNetwork) -> None:
        """Have a peer register a prefix, or register it anew."""
        self.versions[prefix] = version = next_version(self.versions.get(prefix, 0))
        self._told(self.network.change(mapped(owner, str(prefix), version=version)))

    def unmap(self, prefix: IPNetwork) -> None:
        """Have a prefix go, if it is there."""
        if self.owner_of_place(prefix):
            self._told(self.network.change(unmapped(str(prefix))))

    def packet(self, host: ipaddress.IPv4Address) -> None:
        """Send a packet from an application, as it comes out of the TUN."""
        if self.held(host) is None:  # with a route it would not come
            packet = echo_request(OWN[0], host, 1)
            self._said(self.engine.packet(self.network.now, packet))

    def run(self, seconds: float = SETTLE_S) -> None:
        """Let time pass for both."""
        end = self.network.now + seconds
        while (due := self.engine.deadline()) is not None and due <= end:
            self._told(self.network.tick(max(0.001, due - self.network.now)))
            self._said(self.engine.timer(self.network.now))
        self._told(self.network.tick(max(0.0, end - self.network.now)))

    def _said(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                self._told(self.network.send("a1", action.datagram))

    def _told(self, actions: list[ServiceAction]) -> None:
        others = [one for one in sent(actions) if one.destination[0] != control("a1")]
        self.network.acknowledge(list(others))
        now, address = self.network.now, SERVER.control_address
        for one in sent(actions):
            if one not in others:
                self._said(self.engine.datagram(now, address, one.datagram))
        for asked in told(actions):
            if isinstance(asked.message, Barrier):  # for a refresh: everything is applied
                self._told(self.network.barrier(asked.message.number))

    # ------------------------------------------------------------------------ what must hold

    def owner_of_place(self, prefix: IPNetwork) -> str | None:
        place = Place(0, prefix_to_bytes(prefix))
        mapping = self.network.service._follower.tables.mapping(place)
        return None if mapping is None else mapping.peer.name

    def served(self, host: ipaddress.IPv4Address) -> bytes | None:
        """Return the key of the peer that has an address, by the tables."""
        match = self.network.service._follower.tables.match(0, host.packed)
        return None if match is None else key(match.peer.name)

    def held(self, host: ipaddress.IPv4Address) -> bytes | None:
        """Return the key to which the agent sends."""
        claim = self.engine._plane.data.table.owner(host)
        return None if claim is None else bytes(claim.key)

    def check(self) -> None:
        """Check that nobody is taken for the owner who is not."""
        for host in SPACE:
            held = self.held(host)
            assert held is None or held == self.served(host), f"{host}: {self.story()}"

    def story(self) -> str:
        claims = self.engine._plane.data.table.claims()
        return "; ".join(f"{one.prefix} {bytes(one.key)!r} v{one.version}" for one in claims)


prefixes = st.builds(
    lambda length, number: list(SPACE.subnets(new_prefix=length))[number % 2 ** (length - 28)],
    st.integers(28, 32),
    st.integers(0, 15),
)
steps = st.one_of(
    st.tuples(st.sampled_from(OWNERS), prefixes),
    st.tuples(st.none(), prefixes),
    st.tuples(st.just("packet"), prefixes),
)


@pytest.mark.timeout(300)
@settings(max_examples=EXAMPLES, derandomize=True, deadline=None)
@given(st.lists(steps, min_size=1, max_size=14))
def test_what_an_agent_holds_is_what_the_tables_say(
    plan: list[tuple[str | None, ipaddress.IPv4Network]],
) -> None:
    pair = Pair()
    for what, prefix in plan:
        host = prefix[0]
        if what == "packet":
            pair.packet(host)
        elif what is None:
            pair.unmap(prefix)
        else:
            pair.map(what, prefix)
        pair.run()
        pair.check()
        if what == "packet":
            assert pair.held(host) == pair.served(host), f"a hole at {host}: {pair.story()}"


def test_a_part_that_becomes_anothers_mapping_goes_to_it_whatever_its_version() -> None:
    """Versions are of a mapping: that of a part says nothing about one of the same prefix."""
    pair = Pair()
    wide, part = SPACE, ipaddress.IPv4Network("10.66.0.8/29")
    for _ in range(7):
        pair.map("a2", wide)
    pair.map("a3", ipaddress.ip_network("10.66.0.0/29"))
    pair.packet(part[1])
    pair.run()
    assert pair.held(part[1]) == key("a2")
    pair.map("a4", part)  # its first version, against the seventh of the part
    pair.run()
    pair.check()
    assert pair.held(part[1]) == key("a4")
    assert pair.engine.counters["mapping.disputed"] == 1


def test_what_a_peer_withdrew_does_not_take_its_next_mapping_along() -> None:
    """The withdrawal goes along with what is told of the peer for a while."""
    pair = Pair()
    pair.map("a4", SPACE)
    pair.packet(SPACE[0])
    pair.run()
    pair.map("a2", SPACE)
    pair.packet(SPACE[0])
    pair.run()
    pair.map("a4", ipaddress.IPv4Network("10.66.0.0/29"))
    pair.run()
    pair.check()
    assert pair.held(SPACE[0]) == key("a4")


def test_a_part_with_the_prefix_of_a_mapping_that_was_withdrawn_is_no_hole() -> None:
    pair = Pair()
    part = ipaddress.IPv4Network("10.66.0.8/29")
    for _ in range(7):
        pair.map("a3", part)
    pair.packet(part[1])
    pair.run()
    pair.unmap(part)
    pair.map("a4", ipaddress.ip_network("10.66.0.0/29"))
    pair.map("a2", SPACE)
    pair.run(5.0)
    pair.packet(part[1])
    pair.run()
    assert pair.held(part[1]) == key("a2")
