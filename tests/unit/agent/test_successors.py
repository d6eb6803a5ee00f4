"""A peer rotates its data key, and this agent is told of the new one; and its own new key."""

import ipaddress

import pytest

from support.agent_values import (
    LOW_KEY,
    OWN_KEY,
    device_state,
    locator,
    make_engine,
    net,
    peer_state,
    record,
    server,
    unread_engine,
)
from wgmap.addresses import Endpoint
from wgmap.lisp import codec
from wgmap.lisp.messages import MapNotify, MapNotifyAck, MapRegister
from wgmap.wg.device import PeerConfig
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.engine import MAX_PUT_OFF, Engine
from wgmap_agent.engine.rotation import LEAST_DATA_BYTES
from wgmap_agent.engine.successors import QUIET_S
from wgmap_agent.engine.types import Action, ConfigurePeers, Inject, ReadPeers, Send, Tunnel

MS1 = server(1).control_address
NEW_KEY = PublicKey(b"n" * 32)
HIGHEST = PublicKey(b"\xff" * 32)
WALL = 1_700_000_000.0
FIRST = net("10.66.2.1/32")


def push(engine: Engine, now: float, *, key: PublicKey, port: int, version: int) -> list[Action]:
    place = locator(key)
    moved = record("10.66.2.1/32", type(place)(place.address, port, key), version=version)
    return engine.datagram(now, MS1, codec.encode(MapNotify(int(now * 1000), (moved,))))


def standing() -> Engine:
    """An engine with one peer whose tunnel stands."""
    engine = make_engine()
    engine.peers_read(0.0, ReadPeers(Tunnel.DATA), device_state(), WALL)
    push(engine, 1.0, key=LOW_KEY, port=51820, version=5)
    read(engine, 1.5, peer_state(LOW_KEY, last_handshake=WALL, rx_bytes=500, tx_bytes=500))
    assert [one.state for one in engine.status(1.5).peers] == ["up"]
    return engine


def read(engine: Engine, now: float, *states: object) -> list[Action]:
    engine.timer(now)
    return engine.peers_read(now, ReadPeers(Tunnel.DATA), device_state(*states), WALL)  # type: ignore[arg-type]


def peers_in(actions: list[Action]) -> list[PeerConfig]:
    return [
        peer
        for action in actions
        if isinstance(action, ConfigurePeers) and action.tunnel is Tunnel.DATA
        for peer in action.peers
    ]


OLD_UP = peer_state(LOW_KEY, last_handshake=WALL, rx_bytes=600, tx_bytes=600)


def test_a_new_key_at_another_port_is_tried_while_the_old_one_goes_on() -> None:
    engine = standing()
    actions = push(engine, 2.0, key=NEW_KEY, port=51830, version=6)
    [tried] = peers_in(actions)
    assert (tried.key, tried.allowed_ips, tried.keepalive_s) == (NEW_KEY, (), 25)
    assert not engine.successors.is_quiet(2.0)
    [peer] = engine.status(2.0).peers
    assert peer.key == str(LOW_KEY)
    assert peers_in(read(engine, 2.1, OLD_UP, peer_state(NEW_KEY, allowed_ips=()))) == []
    stands = peer_state(NEW_KEY, allowed_ips=(), last_handshake=WALL, rx_bytes=92)
    actions = read(engine, 2.2, OLD_UP, stands)
    [change] = [one for one in actions if isinstance(one, ConfigurePeers) and len(one.peers) > 1]
    gone, new = change.peers  # one request: no moment without an owner
    assert [one.key for one in peers_in(actions) if one.remove] == [LOW_KEY]
    assert (gone.key, gone.remove) == (LOW_KEY, True)
    assert (new.key, new.allowed_ips) == (NEW_KEY, (FIRST,))
    assert any(isinstance(one, Inject) for one in actions), "the owner must see it"
    assert not engine.successors.is_quiet(2.3)
    assert engine.successors.is_quiet(2.2 + QUIET_S)
    [peer] = engine.status(2.2).peers
    assert peer.key == str(NEW_KEY)


def until_read(engine: Engine, now: float) -> float:
    """Let time pass until the data device is to be read; returns when."""
    end = now + 10.0
    while now < end:
        if any(isinstance(a, ReadPeers) and a.tunnel is Tunnel.DATA for a in engine.timer(now)):
            return now
        now += 0.001
    raise AssertionError


def test_its_owner_is_shown_that_a_new_key_took_over_until_it_shows_that_it_saw() -> None:
    """An echo request may be lost, and nobody else may have anything to send."""
    engine = standing()
    push(engine, 2.0, key=NEW_KEY, port=51830, version=6)
    shown, now = [], 2.1
    for number in range(6):
        now = until_read(engine, now)
        came = 92 if number < 4 else 92 + LEAST_DATA_BYTES
        stands = peer_state(NEW_KEY, allowed_ips=(FIRST,), last_handshake=WALL, rx_bytes=came)
        actions = read(engine, now, *((stands,) if number else (OLD_UP, stands)))
        shown.append((round(now), sum(isinstance(one, Inject) for one in actions)))
    assert shown == [(2, 1), (2, 1), (4, 1), (6, 1), (8, 0), (10, 0)]


@pytest.mark.parametrize(("strangers", "answered"), [(0, False), (5000, True)])
def test_that_a_new_key_stands_is_seen_soon(strangers: int, answered: bool) -> None:
    """On a busy machine with a few peers, and where many peers make a look expensive."""
    engine = standing()
    many = [peer_state(PublicKey(number.to_bytes(32, "big"))) for number in range(1, strangers + 1)]
    push(engine, 2.0, key=NEW_KEY, port=51830, version=6)
    began = until_read(engine, 3.6)
    waits = peer_state(NEW_KEY, allowed_ips=())
    took = 0.4
    state = device_state(OLD_UP, waits, *many)
    engine.peers_read(began + took, ReadPeers(Tunnel.DATA), state, WALL)
    now = began + took + 0.05
    if answered:
        engine.response(now, Endpoint(ipaddress.ip_address("192.0.2.12"), 51830))
    assert until_read(engine, now) - now < 0.1


def test_responses_make_it_look_at_once_only_once_a_try() -> None:
    """They may be forged."""
    engine = standing()
    push(engine, 2.0, key=NEW_KEY, port=51830, version=6)
    source = engine.successors.all()[0].offer.endpoint
    assert [engine.successors.answered(source) for _ in range(3)] == [True, False, False]
    read(engine, 3.1, OLD_UP, peer_state(NEW_KEY, allowed_ips=()))  # tried again
    assert engine.successors.answered(source)


def test_a_new_key_that_is_told_before_the_device_was_read_drops_nothing() -> None:
    """Whoever is started anew hears of it at once, and knows its peers a moment later."""
    engine = unread_engine()
    assert push(engine, 0.05, key=NEW_KEY, port=51830, version=6) == [], "nor acknowledged yet"
    actions = engine.peers_read(0.1, ReadPeers(Tunnel.DATA), device_state(OLD_UP), WALL)
    [tried] = peers_in(actions)
    assert (tried.key, tried.allowed_ips) == (NEW_KEY, ())
    [peer] = engine.status(0.1).peers
    assert peer.key == str(LOW_KEY)
    sent = [one.datagram for one in engine.timer(0.2) if isinstance(one, Send)]
    assert any(isinstance(codec.decode(one), MapNotifyAck) for one in sent)


def test_what_comes_before_the_device_was_read_is_bounded() -> None:
    engine = unread_engine()
    for number in range(MAX_PUT_OFF + 9):
        assert push(engine, number / 1e4, key=LOW_KEY, port=51820, version=number + 1) == []
    engine.peers_read(0.1, ReadPeers(Tunnel.DATA), device_state(), WALL)
    assert engine.counters["push.received"] == MAX_PUT_OFF


def test_a_new_key_at_the_same_port_means_that_the_old_one_is_dead() -> None:
    engine = standing()
    actions = push(engine, 2.0, key=NEW_KEY, port=51820, version=6)
    assert {(one.key, one.remove) for one in peers_in(actions)} >= {(LOW_KEY, True)}
    assert engine.status(2.0).counters["peer.key_changed"] == 1


def test_a_handshake_that_the_other_side_is_at_is_not_begun_anew() -> None:
    engine = standing()
    push(engine, 2.0, key=NEW_KEY, port=51830, version=6)
    at_it = peer_state(NEW_KEY, allowed_ips=(), rx_bytes=148)
    assert peers_in(read(engine, 3.1, OLD_UP, at_it)) == []
    assert peers_in(read(engine, 4.0, OLD_UP, at_it)) == []
    assert len(peers_in(read(engine, 4.2, OLD_UP, at_it))) == 2


def test_a_new_key_that_never_stands_is_taken_all_the_same_in_the_end() -> None:
    engine = standing()
    push(engine, 2.0, key=NEW_KEY, port=51830, version=6)
    silent = peer_state(NEW_KEY, allowed_ips=())
    kicked = read(engine, 3.1, OLD_UP, silent)
    assert [(one.key, one.remove) for one in peers_in(kicked)] == [
        (NEW_KEY, True),
        (NEW_KEY, False),
    ]
    assert peers_in(read(engine, 4.9, OLD_UP, silent)) == []  # twice as long now
    actions = read(engine, 62.5, OLD_UP, silent)
    assert (LOW_KEY, True) in {(one.key, one.remove) for one in peers_in(actions)}
    assert engine.status(62.5).counters["peer.successor_failed"] == 1


def test_where_both_rotate_the_lower_new_key_initiates() -> None:
    engine = standing()
    engine.rotate(1.9, HIGHEST, 51830)
    [tried] = peers_in(push(engine, 2.0, key=NEW_KEY, port=51830, version=6))
    assert (tried.key, tried.allowed_ips, tried.keepalive_s) == (NEW_KEY, (), None)
    silent = peer_state(NEW_KEY, allowed_ips=())
    assert peers_in(read(engine, 3.2, OLD_UP, silent)) == []
    late = peers_in(read(engine, 3.6, OLD_UP, silent))
    assert [(one.remove, one.keepalive_s) for one in late] == [(True, None), (False, 25)]


def test_where_we_have_rotated_we_initiate_whatever_the_keys() -> None:
    engine = standing()
    engine.rotate(1.8, HIGHEST, 51830)
    engine.successors.rotated()
    [tried] = peers_in(push(engine, 2.0, key=NEW_KEY, port=51830, version=6))
    assert tried.keepalive_s == 25


def test_a_revoked_successor_leaves_the_device() -> None:
    engine = standing()
    push(engine, 2.0, key=NEW_KEY, port=51830, version=6)
    gone = record("10.66.2.1/32", locator(NEW_KEY, key_revoked=True), ttl_min=0, version=0)
    actions = engine.datagram(3.0, MS1, codec.encode(MapNotify(7, (gone,))))
    assert (NEW_KEY, True) in {(one.key, one.remove) for one in peers_in(actions)}
    assert peers_in(read(engine, 3.1, OLD_UP)) == []


# --------------------------------------------------------------------------------- the registration


def test_the_new_key_is_registered_and_peers_are_told_once_it_is_acknowledged() -> None:
    engine = standing()
    actions = engine.rotate(2.0, NEW_KEY, 51830)
    [sent] = [codec.decode(one.datagram) for one in actions if isinstance(one, Send)]
    assert isinstance(sent, MapRegister)
    assert {(one.key, one.port) for one in sent.records[0].locators} == {(bytes(NEW_KEY), 51830)}
    assert not engine.is_registered(2.0)
    assert engine.rotate(2.1, NEW_KEY, 51830) == []
    asked_of = next(one.server for one in actions if isinstance(one, Send))
    source = server(int(asked_of[-1])).control_address
    engine.datagram(2.2, source, codec.encode(MapNotify(sent.nonce, sent.records)))
    assert engine.is_registered(2.2)
    asked = engine.counters["mapping.revalidated"]
    engine.timer(8.0)
    assert engine.counters["mapping.revalidated"] > asked
    for key in (OWN_KEY, NEW_KEY):  # neither is ever a peer
        push(engine, 8.1, key=key, port=51820, version=9)
        assert str(key) not in {one.key for one in engine.status(8.1).peers}
