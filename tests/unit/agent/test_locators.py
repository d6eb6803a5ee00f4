"""Priorities and weights: what is registered, and which way is taken."""

import ipaddress
import random
from collections import Counter
from dataclasses import replace

import pytest

from support.agent_values import (
    IDENTITY,
    UNDERLAY,
    locator,
    net,
)
from wgmap.addresses import Endpoint
from wgmap.lisp import codec
from wgmap.lisp.messages import MapRegister
from wgmap_agent.engine.engine import Engine
from wgmap_agent.engine.locators import Rank, own_ranks, ways
from wgmap_agent.engine.types import (
    SavedState,
    Send,
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


def test_configured_ranks_are_registered() -> None:
    ranks = (Rank(net("192.0.2.0/24"), 7, 11),)
    engine = Engine(replace(IDENTITY, ranks=ranks), SavedState(), random.Random(1))
    sent = [codec.decode(a.datagram) for a in engine.start(0.0, UNDERLAY) if isinstance(a, Send)]
    [register] = [one for one in sent if isinstance(one, MapRegister)]
    assert {(one.priority, one.weight) for one in register.records[0].locators} == {(7, 11)}
