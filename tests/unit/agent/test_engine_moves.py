"""Endpoints belong to the data plane: when control data may replace one, and when it may not."""

import ipaddress
from collections import Counter

from support.agent_values import (
    LOW_KEY,
    SERVERS,
    WALL,
    device_state,
    locator,
    make_engine,
    peer_state,
    record,
)
from wgmap.addresses import Endpoint
from wgmap.lisp import codec
from wgmap.lisp.messages import MapNotify, MapReply, MapRequest, Record
from wgmap_agent.engine.moves import Budget
from wgmap_agent.engine.types import Action, ConfigurePeers, ReadPeers, Send, Tunnel

MS1 = SERVERS[0].control_address
ADVERTISED = Endpoint(ipaddress.ip_address("192.0.2.12"), 51820)
ROAMED = Endpoint(ipaddress.ip_address("198.51.100.7"), 40_000)  # behind a NAT, say
MOVED = (ipaddress.ip_address("192.0.2.99"),)


class Stood:
    """An engine with a peer that stands, whose endpoint WireGuard has learned itself."""

    def __init__(self) -> None:
        self.engine = make_engine()
        self.rx = self.tx = 1000
        self.engine.peers_read(0.1, ReadPeers(Tunnel.DATA), device_state(), WALL)
        self.push(1.0, record())
        self.read(1.5)
        self.read(1.6)
        assert [one.state for one in self.engine.status(1.6).peers] == ["up"]
        assert self.engine.status(1.6).peers[0].endpoint == str(ROAMED)

    def push(self, now: float, *records: Record) -> list[Action]:
        return self.engine.datagram(now, MS1, codec.encode(MapNotify(int(now * 1000), records)))

    def read(self, now: float, *, heard: int = 0, sent: int = 0) -> list[Action]:
        """Read the data device after so many more bytes."""
        self.rx, self.tx = self.rx + heard, self.tx + sent
        state = peer_state(
            LOW_KEY,
            endpoint=ROAMED,
            last_handshake=WALL,
            rx_bytes=self.rx,
            tx_bytes=self.tx,
        )
        asked = self.engine.timer(now)
        return asked + self.engine.peers_read(
            now, ReadPeers(Tunnel.DATA), device_state(state), WALL
        )

    def answer(self, now: float, actions: list[Action], *records: Record) -> list[Action]:
        """Answer the refresh among the actions."""
        reply = MapReply(refresh_in(actions).nonce, records or (record(),))
        return self.engine.datagram(now, MS1, codec.encode(reply))


def refresh_in(actions: list[Action]) -> MapRequest:
    (refresh, *_) = refreshes(actions)
    return refresh


def refreshes(actions: list[Action]) -> list[MapRequest]:
    messages = [codec.decode(action.datagram) for action in actions if isinstance(action, Send)]
    return [one for one in messages if isinstance(one, MapRequest) and one.smr_invoked]


def endpoints_set(actions: list[Action]) -> list[Endpoint]:
    return [
        one.endpoint
        for action in actions
        if isinstance(action, ConfigurePeers) and action.tunnel is Tunnel.DATA
        for one in action.peers
        if one.endpoint is not None
    ]


def test_a_push_of_the_same_endpoint_leaves_the_one_that_works() -> None:
    stood = Stood()
    for version in (5, 6, 7):
        assert endpoints_set(stood.push(2.0, record(version=version))) == []
    more = (record(version=8), record("10.66.9.0/24", version=1))
    assert endpoints_set(stood.push(2.1, *more)) == []


def test_another_advertised_endpoint_is_taken() -> None:
    stood = Stood()
    actions = stood.push(2.0, record("10.66.2.1/32", locator(LOW_KEY, "192.0.2.77"), version=6))
    assert [str(one.address) for one in endpoints_set(actions)] == ["192.0.2.77"]


def test_our_own_move_pokes_the_peer_where_it_was_heard() -> None:
    """The answer to the refresh that belongs to it repeats what was advertised: no news."""
    stood = Stood()
    assert endpoints_set(stood.engine.addresses_changed(10.0, MOVED)) == []
    looked = stood.read(10.01, heard=500, sent=500)  # came before the move, read only now
    assert endpoints_set(stood.answer(10.05, looked)) == []
    stood.read(10.1, heard=500)
    stood.read(10.6, heard=500)
    assert stood.engine.counters["peer.found_again"] == 1


def test_what_came_before_the_move_is_no_sign_of_life() -> None:
    stood = Stood()
    stood.engine.addresses_changed(10.0, MOVED)
    assert refresh_in(stood.read(10.01, heard=500, sent=500)).smr_invoked
    assert stood.engine.counters["peer.found_again"] == 0
    assert [one.state for one in stood.engine.status(10.02).peers] == ["silent"]


def test_after_a_poke_without_an_answer_the_advertised_endpoint_is_set_again() -> None:
    stood = Stood()
    stood.engine.addresses_changed(10.0, MOVED)
    stood.answer(10.05, stood.read(10.01, heard=500, sent=500))
    looked = stood.read(11.0, sent=500)
    assert endpoints_set(stood.answer(11.05, looked)) == [ADVERTISED]


def test_a_silent_peer_gets_the_advertised_endpoint_only_after_a_probe_without_an_answer() -> None:
    stood = Stood()
    stood.read(4.0, sent=5000)
    probed = stood.read(7.5, sent=5000)
    assert stood.engine.counters["peer.probed"] == 1
    assert not refreshes(probed)
    looked = stood.read(9.5, sent=5000)
    assert endpoints_set(stood.answer(9.6, looked)) == [ADVERTISED]


def test_a_session_that_only_the_pushed_side_has_is_given_up_in_the_end() -> None:
    """The puller knows nothing of it, so it does not kick; nobody else would for 15 s."""
    stood = Stood()
    stood.read(4.0, sent=5000)
    now = 4.0
    while not stood.engine.counters["peer.kicked"]:
        wanted = stood.engine._watch.deadline()
        assert wanted is not None
        now = max(wanted, now + 0.05)
        actions = stood.read(now, sent=500)
        if refreshes(actions):
            stood.answer(now + 0.01, actions)
        assert now < 13
    assert now > 6  # the puller would have kicked


def test_a_one_way_flow_whose_probes_are_answered_asks_nobody() -> None:
    stood = Stood()
    now = 4.0
    for _ in range(50):
        stood.read(now, sent=50_000)
        deadline = stood.engine._watch.deadline()
        assert deadline is not None
        now = max(deadline, now + 0.05)
        probed = stood.engine.counters["peer.probed"]
        stood.read(now, sent=50_000)
        answered = stood.engine.counters["peer.probed"] > probed
        now += 0.1
        stood.read(now, heard=100 if answered else 0)
    assert stood.engine.counters["peer.probed"] <= now / 2  # no storm
    assert stood.engine.counters["peer.looked_for"] == 0


def test_what_a_lost_server_would_have_told_is_asked_for_at_a_limited_rate() -> None:
    engine = make_engine()
    for number in range(200):
        new = record(f"10.66.{number + 2}.0/24", locator(number.to_bytes(32), "192.0.2.12"))
        engine.datagram(1.0, MS1, codec.encode(MapNotify(number + 1, (new,))))
    engine._renewals.all_soon(2.0)
    asked: list[float] = []
    while (at := engine._renewals.deadline()) is not None and at < 20:
        before = engine.counters["mapping.revalidated"]
        engine._renewals.due(at)
        asked += [at] * (engine.counters["mapping.revalidated"] - before)
    assert len(asked) == 200
    assert max(Counter(int(at) for at in asked).values()) <= 40
    assert asked[-1] > 2.0 + 200 / 25


def test_the_budget_of_questions_for_peers_that_are_looked_for() -> None:
    budget = Budget(per_s=10, burst=5)
    assert [budget.allows(1.0) for _ in range(7)] == 5 * [True] + 2 * [False]
    assert budget.allows(1.1)
    assert not budget.allows(1.1)
    assert sum(budget.allows(100.0) for _ in range(20)) == 5
