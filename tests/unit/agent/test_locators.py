"""Priorities and weights: what is registered, and which way is taken."""

import ipaddress
import itertools
import random
from collections import Counter
from dataclasses import replace

import pytest

from support.agent_values import (
    IDENTITY,
    LOW_KEY,
    UNDERLAY,
    device_state,
    locator,
    make_engine,
    net,
    peer_state,
    record,
    server,
)
from wgmap.addresses import Endpoint
from wgmap.lisp import codec
from wgmap.lisp.messages import Locator, MapNotify, MapRegister
from wgmap.wg.device import PeerState
from wgmap_agent.engine.engine import Engine
from wgmap_agent.engine.locators import Rank, own_ranks, ways
from wgmap_agent.engine.types import (
    Action,
    ConfigurePeers,
    ReadPeers,
    SavedState,
    Send,
    Tunnel,
)

ADDRESSES = tuple(
    map(ipaddress.ip_address, ("192.0.2.11", "198.51.100.11", "2001:db8:6::b", "2001:db8:7::b"))
)
WALL = 1_700_000_000.0


def at(address: str) -> Endpoint:
    return Endpoint(ipaddress.ip_address(address), 51820)


def test_automatic_priorities_prefer_the_first_of_each_family() -> None:
    assert [(str(a), p, w) for a, p, w in own_ranks(ADDRESSES, ())] == [
        ("192.0.2.11", 1, 100),
        ("198.51.100.11", 2, 100),
        ("2001:db8:6::b", 1, 100),
        ("2001:db8:7::b", 2, 100),
    ]


def test_configured_priorities_win_and_255_keeps_an_address_back() -> None:
    configured = (
        Rank(net("198.51.100.0/24"), 1, 30),
        Rank(net("192.0.2.0/24"), 5, 100),
        Rank(net("2001:db8:7::/64"), 255, 100),
    )
    assert [(str(a), p, w) for a, p, w in own_ranks(ADDRESSES, configured)] == [
        ("192.0.2.11", 5, 100),
        ("198.51.100.11", 1, 30),
        ("2001:db8:6::b", 1, 100),
    ]


def test_the_lowest_priority_comes_first_and_the_rest_in_order() -> None:
    offered = [
        locator(address="192.0.2.1", priority=3),
        locator(address="192.0.2.2", priority=1),
        locator(address="2001:db8::1", priority=1),
        locator(address="192.0.2.3", priority=2),
    ]
    assert [str(one.address) for one in ways(offered, b"me")] == [
        "192.0.2.2",
        "2001:db8::1",
        "192.0.2.3",
        "192.0.2.1",
    ]


def test_weights_are_the_shares_of_many_agents_and_each_stays_with_its_own() -> None:
    weights = {"192.0.2.1": 75, "192.0.2.2": 25, "192.0.2.3": 0}
    offered = [locator(address=one, weight=weight) for one, weight in weights.items()]
    taken = Counter(str(ways(offered, str(n).encode())[0].address) for n in range(2000))
    assert taken["192.0.2.3"] == 0
    assert 0.71 < taken["192.0.2.1"] / 2000 < 0.79
    for number in range(20):
        chooser = str(number).encode()
        assert ways(offered, chooser)[0] == ways(offered[::-1], chooser)[0]


@pytest.mark.parametrize("weight", [0, 50])
def test_equals_without_weight_are_ways_all_the_same(weight: int) -> None:
    offered = [locator(address=f"192.0.2.{n}", weight=weight) for n in (1, 2)]
    assert {str(one.address) for one in ways(offered, b"me")} == {"192.0.2.1", "192.0.2.2"}


# --------------------------------------------------------------------- a peer with several of them

FIRST, SECOND, THIRD = at("192.0.2.12"), at("198.51.100.12"), at("203.0.113.12")
TWO = (
    locator(address="192.0.2.12", priority=1),
    locator(address="198.51.100.12", priority=2),
)


class Peered:
    """An engine with a peer whose tunnel stands, and a device that says what is set."""

    def __init__(self, *locators: Locator) -> None:
        self.engine: Engine = make_engine()
        self.now = 1.0
        self.endpoint: Endpoint | None = None
        self.rx = self.tx = 500
        self.engine.peers_read(0.0, Tunnel.DATA, device_state(), WALL)
        self.push(5, *locators)
        self.read(1.5)

    def push(self, version: int, *locators: Locator) -> None:
        message = MapNotify(version, (record("10.66.2.1/32", *locators, version=version),))
        source = server(1).control_address
        self.take(self.engine.datagram(self.now, source, codec.encode(message)))

    def take(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, ConfigurePeers) and action.tunnel is Tunnel.DATA:
                for change in action.peers:
                    self.endpoint = change.endpoint or self.endpoint

    def state(self) -> PeerState:
        return peer_state(
            LOW_KEY,
            endpoint=self.endpoint,
            last_handshake=WALL,
            rx_bytes=self.rx,
            tx_bytes=self.tx,
        )

    def read(self, now: float) -> None:
        self.now = now
        actions = self.engine.timer(now)
        self.take(actions)
        if ReadPeers(Tunnel.DATA) in actions:
            state = device_state(self.state())
            self.take(self.engine.peers_read(now, Tunnel.DATA, state, WALL))

    def run(self, until: float, *, heard: bool, step: float = 0.1) -> None:
        """Send all the time; the peer is heard or not."""
        while self.now < until:
            self.tx += 1000
            self.rx += 1000 if heard else 0
            self.read(self.now + step)

    def counter(self, name: str) -> int:
        return self.engine.counters[name]


def test_a_silent_way_gives_place_to_the_next_and_is_tried_again_later() -> None:
    one = Peered(*TWO)
    assert one.endpoint == FIRST
    one.run(3.0, heard=True)
    one.run(11.0, heard=False)
    assert one.counter("peer.way_changed") >= 1
    one.endpoint = SECOND  # the device took it from what came there
    one.run(11.5, heard=True)
    changed = one.counter("peer.way_changed")
    one.run(30.0, heard=True, step=1.0)
    assert one.endpoint == SECOND
    assert one.counter("peer.way_back_tried") == 0
    assert one.counter("peer.way_changed") == changed


def test_the_way_back_is_taken_when_the_peer_answers_there() -> None:
    one = Peered(*TWO)
    one.engine._plane.next_way(next(iter(one.engine._plane.data.peers.values())))
    one.endpoint = SECOND
    one.run(60.0, heard=True, step=1.0)
    assert one.counter("peer.way_back_tried") == 0
    while not one.counter("peer.way_back_tried"):
        one.run(one.now + 0.9, heard=True, step=1.0)
    assert one.endpoint == FIRST
    one.run(one.now + 1, heard=True, step=0.5)  # and what comes, comes from there
    assert one.counter("peer.way_back") == 1
    one.run(one.now + 300, heard=True, step=1.0)
    assert one.counter("peer.way_back_tried") == 1


def test_a_way_back_that_is_dead_is_left_at_once_and_tried_more_seldom() -> None:
    one = Peered(*TWO)
    one.engine._plane.next_way(next(iter(one.engine._plane.data.peers.values())))
    one.endpoint = SECOND
    tried = []
    while one.now < 500:
        before = one.counter("peer.way_back_tried")
        one.run(one.now + 1.0, heard=True, step=1.0)
        if one.counter("peer.way_back_tried") > before:
            tried.append(one.now)
            assert one.endpoint == FIRST
            one.endpoint = SECOND  # the peer goes on to send from there
        elif tried:
            assert one.endpoint == SECOND
    assert [round(b - a, -1) for a, b in itertools.pairwise(tried)] == [120, 240]
    assert one.counter("peer.way_back") == 0


def test_a_changed_set_of_locators_begins_with_its_first() -> None:
    one = Peered(*TWO)
    one.push(6, *TWO)  # the same again
    assert one.endpoint == FIRST
    one.push(7, locator(address="203.0.113.12", priority=0), *TWO)
    assert one.endpoint == THIRD
    one.push(8, TWO[1])
    assert one.endpoint == SECOND


def test_configured_ranks_are_registered() -> None:
    ranks = (Rank(net("192.0.2.0/24"), 7, 11),)
    engine = Engine(replace(IDENTITY, ranks=ranks), SavedState(), random.Random(1))
    sent = [codec.decode(a.datagram) for a in engine.start(0.0, UNDERLAY) if isinstance(a, Send)]
    [register] = [one for one in sent if isinstance(one, MapRegister)]
    assert {(one.priority, one.weight) for one in register.records[0].locators} == {(7, 11)}
