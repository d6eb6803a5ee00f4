"""The engine as a whole: bad input changes nothing, actions come in the right order."""

import ipaddress
import json
import random
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.agent_sim.host import ip_packet
from support.agent_values import (
    HIGH_KEY,
    IDENTITY,
    LOW_KEY,
    OWN_KEY,
    SERVERS,
    UNDERLAY,
    WALL,
    device_state,
    locator,
    make_engine,
    net,
    peer_state,
    record,
    unread_engine,
)
from wgmap.addresses import Endpoint
from wgmap.lisp import codec
from wgmap.lisp.messages import (
    Action as Act,
)
from wgmap.lisp.messages import (
    Eid,
    MapNotify,
    MapNotifyAck,
    MapRegister,
    MapReply,
    MapRequest,
    Message,
    Record,
    RequestRecord,
)
from wgmap.wg.device import PeerConfig
from wgmap_agent.engine.engine import Engine
from wgmap_agent.engine.settings import Settings
from wgmap_agent.engine.types import (
    Action,
    AddRoutes,
    ConfigurePeers,
    DeleteRoutes,
    Inject,
    ReadPeers,
    RefreshEndpoints,
    Refusal,
    Refuse,
    Save,
    SavedState,
    Send,
    Tunnel,
)

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "lisp.json").read_text())
OWN = ipaddress.ip_address("10.66.1.1")
OTHER = ipaddress.ip_address("10.66.2.1")
PING = ip_packet(OWN, OTHER, b"ping")
MS1 = SERVERS[0].control_address


def visible(engine: Engine) -> dict[str, Any]:
    """Everything that a bad datagram must not change."""
    plane = engine._plane
    status = asdict(engine.status(1.0))
    del status["counters"]
    return {
        **status,
        "table": plane.data.table.claims(),
        "flows": plane.contact.all(),
        "held": plane.contact.holding.total,
        "requests": len(engine._requests),
        "nonce": engine._registration.nonce,
        "deadline": engine.deadline(),
    }


def question(actions: list[Action]) -> MapRequest:
    """The Map-Request among the actions."""
    for action in actions:
        if isinstance(action, Send):
            message = codec.decode(action.datagram)
            if isinstance(message, MapRequest):
                return message
    pytest.fail("nothing was asked")


def contact(engine: Engine, *records: Record, now: float = 1.0) -> list[Action]:
    """Let a packet come out of the TUN and answer the question that it makes."""
    asked = question(engine.packet(now, PING))
    reply = MapReply(asked.nonce, records or (record(),))
    return engine.datagram(now + 0.01, MS1, codec.encode(reply))


def kinds(actions: list[Action]) -> list[str]:
    return [type(action).__name__ for action in actions]


# ----------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("vector", VECTORS["malformed"], ids=lambda vector: vector["name"])
def test_malformed_vectors_change_nothing(vector: dict[str, Any]) -> None:
    engine = make_engine()
    contact(engine)
    before = visible(engine)
    assert engine.datagram(1.0, MS1, bytes.fromhex(vector["hex"])) == []
    if vector.get("level") == "codec":
        assert visible(engine) == before
        assert engine.counters["datagram.malformed"] == 1
    else:
        assert visible(engine)["table"] == before["table"]


@given(st.binary(max_size=200))
def test_any_bytes_from_a_server_install_nothing(data: bytes) -> None:
    engine = make_engine()
    before = visible(engine)
    engine.datagram(1.0, MS1, data)
    after = visible(engine)
    assert after["table"] == before["table"]
    assert after["nonce"] == before["nonce"]


MESSAGES: dict[str, Message] = {
    "request": MapRequest(1, (OWN,), (RequestRecord(Eid(net("10.66.1.0/24"), 7)),)),
    "register": MapRegister(1, (record(),)),
    "ack": MapNotifyAck(1, (record(),)),
    "push": MapNotify(1, (record(),)),
    "reply": MapReply(1, (record(),)),
}


@pytest.mark.parametrize("kind", MESSAGES)
@pytest.mark.parametrize("source", ["fd77:676d:6170::99", "fd77:676d:6170::aa", "fd66::2", "::1"])
def test_only_servers_are_listened_to(kind: str, source: str) -> None:
    engine = make_engine()
    before = visible(engine)
    data = codec.encode(MESSAGES[kind])
    assert engine.datagram(1.0, ipaddress.IPv6Address(source), data) == []
    assert visible(engine) == before
    assert engine.counters["datagram.not_a_server"] == 1


@pytest.mark.parametrize("kind", ["request", "register", "ack"])
def test_messages_that_servers_do_not_send_change_nothing(kind: str) -> None:
    engine = make_engine()
    before = visible(engine)
    assert engine.datagram(1.0, MS1, codec.encode(MESSAGES[kind])) == []
    assert visible(engine) == before


def test_an_unasked_reply_installs_nothing() -> None:
    engine = make_engine()
    assert engine.datagram(1.0, MS1, codec.encode(MESSAGES["reply"])) == []
    assert not engine.status(1.0).peers
    assert engine.counters["reply.unasked"] == 1


@pytest.mark.parametrize(
    "bad",
    [
        record("10.66.1.0/24", locator(HIGH_KEY)),
        record("10.66.0.0/16"),
        record("0.0.0.0/0"),
        record("192.0.2.0/24"),
        record("10.66.2.1/32", locator(OWN_KEY)),
        replace(record(), eid=Eid(net("10.66.2.1/32"), 8)),
    ],
)
def test_a_push_of_what_must_be_refused_is_acknowledged_and_installs_nothing(bad: Record) -> None:
    """It would be repeated otherwise."""
    engine = make_engine()
    actions = engine.datagram(1.0, MS1, codec.encode(MapNotify(77, (bad,))))
    assert kinds(actions) == ["Send"]
    assert not engine.status(1.0).peers


def test_an_answer_of_use_to_nobody_ends_the_flow() -> None:
    engine = make_engine()
    actions = contact(engine, record("10.66.9.1/32", locator(OWN_KEY)))
    assert actions == [Refuse(PING, Refusal.UNREACHABLE)]
    assert engine.status(2.0).counters["now.held_packets"] == 0


def test_packets_that_are_not_carried_are_counted() -> None:
    engine = make_engine()
    assert engine.packet(1.0, b"\x00" * 60) == []
    assert engine.packet(1.0, ip_packet(OWN, ipaddress.ip_address("224.0.0.1"), b"")) == []
    assert engine.counters["packet.dropped_malformed"] == 1
    assert engine.counters["packet.dropped_not_unicast"] == 1


def test_an_identity_without_servers_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one server"):
        Engine(replace(IDENTITY, servers=()), SavedState(), random.Random(1))


# --------------------------------------------------------------------------- order of actions


def test_start_configures_reads_saves_and_registers() -> None:
    engine = Engine(IDENTITY, SavedState(), random.Random(1))
    actions = engine.start(0.0, UNDERLAY)
    assert kinds(actions) == ["ConfigurePeers", "ReadPeers", "Save", "Send"]
    assert actions[1] == ReadPeers(Tunnel.DATA)


def test_the_puller_sets_the_peer_then_injects_and_routes_when_answered() -> None:
    engine = make_engine()
    actions = contact(engine, record("10.66.2.1/32"), record("10.66.3.0/24"))
    assert kinds(actions) == ["Stamp", "ConfigurePeers", "Stamp", "Inject", "Stamp"]
    peer, inject = actions[1::2]
    assert isinstance(peer, ConfigurePeers)
    assert peer.tunnel is Tunnel.DATA
    both = (net("10.66.2.1/32"), net("10.66.3.0/24"))
    assert [(one.key, one.allowed_ips, one.keepalive_s) for one in peer.peers] == [
        (LOW_KEY, both, None)
    ]
    assert inject == Inject((PING,))
    assert engine.response(1.02, Endpoint(ipaddress.ip_address("192.0.2.99"), 51820)) == []
    far = Endpoint(ipaddress.ip_address("192.0.2.12"), 51820)
    assert engine.response(1.02, far)[0] == AddRoutes(both)
    assert engine.response(1.03, far) == []


def test_a_response_where_initiations_crossed_makes_no_route() -> None:
    engine = make_engine()
    engine.peers_read(0.1, ReadPeers(Tunnel.DATA), device_state(), WALL)
    contact(engine)
    far = Endpoint(ipaddress.ip_address("192.0.2.12"), 51820)
    engine.initiation(1.02, far, 1.02, b"")
    assert engine.response(1.03, far) == []
    engine.timer(2.0)
    stood = peer_state(LOW_KEY, last_handshake=WALL)
    actions = engine.peers_read(2.0, ReadPeers(Tunnel.DATA), device_state(stood), WALL)
    assert actions[0] == AddRoutes((net("10.66.2.1/32"),))


def test_the_pushed_side_sets_the_peer_and_routes_when_it_initiates() -> None:
    engine = make_engine()
    push = MapNotify(77, (record(),))
    actions = engine.datagram(1.0, SERVERS[1].control_address, codec.encode(push))
    assert kinds(actions) == ["ConfigurePeers"]
    ack = engine.timer(1.01)[0]
    far = Endpoint(ipaddress.ip_address("192.0.2.12"), 51820)
    assert engine.initiation(1.1, far, 1.1, b"")[0] == AddRoutes((net("10.66.2.1/32"),))
    assert isinstance(ack, Send)
    assert ack.server == "ms2"
    assert codec.decode(ack.datagram) == MapNotifyAck(77, push.records)


def test_a_repeated_push_is_acknowledged_again_and_changes_nothing() -> None:
    engine = make_engine()
    push = codec.encode(MapNotify(77, (record(),)))
    engine.datagram(1.0, MS1, push)
    assert kinds(engine.datagram(1.1, MS1, push)) == ["Send"]


def test_the_higher_key_waits_without_a_route_where_both_pull() -> None:
    """LOW_KEY is lower than ours, so we wait for it; HIGH_KEY waits for us."""
    engine = make_engine()
    engine.packet(1.0, PING)
    push = MapNotify(77, (record(),))
    assert kinds(engine.datagram(1.01, MS1, codec.encode(push))) == ["ConfigurePeers"]
    engine = make_engine()
    engine.packet(1.0, PING)
    push = MapNotify(77, (record("10.66.2.1/32", locator(HIGH_KEY)),))
    actions = engine.datagram(1.01, MS1, codec.encode(push))
    assert kinds(actions) == ["ConfigurePeers", "Inject"]


def test_a_withdrawal_removes_the_route_and_then_the_peer() -> None:
    engine = make_engine()
    contact(engine)
    push = MapNotify(77, (record(ttl_min=0, version=6),))
    actions = engine.datagram(1.1, MS1, codec.encode(push))
    assert kinds(actions) == ["DeleteRoutes", "ConfigurePeers", "Refuse"]
    assert actions[0] == DeleteRoutes((net("10.66.2.1/32"),))
    assert actions[1] == ConfigurePeers(Tunnel.DATA, (PeerConfig(LOW_KEY, remove=True),))


def test_a_revoked_key_leaves_with_all_its_prefixes() -> None:
    engine = make_engine()
    contact(engine, record("10.66.2.1/32"), record("10.66.3.1/32"))
    revoked = record("10.66.2.1/32", locator(key_revoked=True), version=6)
    actions = engine.datagram(1.1, MS1, codec.encode(MapNotify(77, (revoked,))))
    assert DeleteRoutes((net("10.66.2.1/32"), net("10.66.3.1/32"))) in actions
    assert not engine.status(1.2).peers


def test_one_withdrawn_prefix_leaves_the_rest_of_the_peer() -> None:
    engine = make_engine()
    contact(engine, record("10.66.2.1/32"), record("10.66.3.1/32"))
    gone = record("10.66.3.1/32", ttl_min=0, version=6)
    actions = engine.datagram(1.1, MS1, codec.encode(MapNotify(77, (gone,))))
    change = PeerConfig(LOW_KEY, allowed_ips=(net("10.66.2.1/32"),), update_only=True)
    assert actions[:2] == [
        DeleteRoutes((net("10.66.3.1/32"),)),
        ConfigurePeers(Tunnel.DATA, (change,)),
    ]


def test_a_prefix_that_changes_hands_is_set_whole_on_both_sides() -> None:
    engine = make_engine()
    contact(engine, record("10.66.2.1/32"), record("10.66.3.1/32"))
    taken = record("10.66.3.1/32", locator(HIGH_KEY), version=6)
    actions = engine.datagram(1.1, MS1, codec.encode(MapNotify(77, (taken,))))
    (change,) = [action for action in actions if isinstance(action, ConfigurePeers)]
    assert [(one.key, one.allowed_ips) for one in change.peers] == [
        (LOW_KEY, (net("10.66.2.1/32"),)),
        (HIGH_KEY, (net("10.66.3.1/32"),)),
    ]


# ------------------------------------------------------------------------------- other events


def test_unknown_destinations_are_refused_from_memory() -> None:
    engine = make_engine()
    unknown = Record(
        Eid(net("10.66.2.1/32"), 7), ttl_min=1, action=Act.SEND_MAP_REQUEST, authoritative=True
    )
    assert contact(engine, unknown) == [Refuse(PING, Refusal.UNREACHABLE)]
    assert engine.packet(1.1, PING) == [Refuse(PING, Refusal.UNREACHABLE)]
    assert question(engine.packet(10.0, PING)).records[0].eid.prefix == net("10.66.2.1/32")


def test_a_denied_destination_is_prohibited() -> None:
    engine = make_engine()
    denied = Record(
        Eid(net("10.66.2.1/32"), 7), ttl_min=1, action=Act.POLICY_DENIED, authoritative=True
    )
    assert contact(engine, denied) == [Refuse(PING, Refusal.PROHIBITED)]


@pytest.mark.parametrize("prefix", ["10.66.2.1/32", "10.0.0.0/8", "0.0.0.0/0"])
def test_natively_forward_leaks_nothing_of_the_overlay(prefix: str) -> None:
    """Outside the overlay nothing comes to the agent; what does is never sent in clear text."""
    engine = make_engine()
    native = Record(
        Eid(net(prefix), 7), ttl_min=15, action=Act.NATIVELY_FORWARD, authoritative=True
    )
    assert contact(engine, native) == [Refuse(PING, Refusal.UNREACHABLE)]
    assert engine.packet(1.1, PING) == [Refuse(PING, Refusal.UNREACHABLE)]


def test_resolve_asks_and_installs_nothing() -> None:
    engine = make_engine()
    asked = question(engine.resolve(1.0, OTHER))
    assert engine.resolution(OTHER) is None
    reply = codec.encode(MapReply(asked.nonce, (record(),)))
    assert engine.datagram(1.01, MS1, reply) == []
    resolution = engine.resolution(OTHER)
    assert resolution is not None
    assert resolution.found
    assert resolution.authoritative
    assert resolution.records == (record(),)
    assert not engine.status(1.1).peers


def test_resolve_without_any_answer_ends() -> None:
    engine = make_engine()
    engine.resolve(1.0, OTHER)
    now = 1.0
    while engine.resolution(OTHER) is None:
        deadline = engine.deadline()
        assert deadline is not None
        now = max(now, deadline)
        engine.timer(now)
    resolution = engine.resolution(OTHER)
    assert resolution is not None
    assert not resolution.found
    assert now < 12


def test_addresses_that_did_not_change_only_cure_the_stale_source() -> None:
    engine = make_engine()
    both = [RefreshEndpoints(Tunnel.CONTROL), RefreshEndpoints(Tunnel.DATA)]
    assert engine.addresses_changed(1.0, UNDERLAY) == both
    moved = engine.addresses_changed(2.0, (ipaddress.ip_address("192.0.2.99"),))
    assert moved[:1] + moved[-1:] == both
    assert kinds(moved[1:-1]) == ["Save", *4 * ["Send"]]  # the register, and a probe to each server
    assert {one.server for one in moved if isinstance(one, Send)} == {"ms1", "ms2", "ms3"}


def test_a_failed_route_is_tried_again_and_the_failure_is_told() -> None:
    engine = make_engine()
    contact(engine)
    route = AddRoutes((net("10.66.2.1/32"),))
    assert engine.failed(1.1, route, OSError("no such device")) == []
    assert engine.last_failure == "AddRoutes: no such device"
    assert engine.counters["failed.AddRoutes"] == 1
    assert route in engine.timer(2.2)


def test_a_failed_reading_is_not_waited_for() -> None:
    engine = unread_engine()
    engine.failed(0.1, ReadPeers(Tunnel.DATA), OSError("gone"))
    assert ReadPeers(Tunnel.DATA) in engine.timer(0.5)


def test_a_peer_that_the_device_lost_is_added_again() -> None:
    engine = make_engine()
    engine.peers_read(0.1, ReadPeers(Tunnel.DATA), device_state(), WALL)
    contact(engine)
    engine.timer(1.5)
    actions = engine.peers_read(1.51, ReadPeers(Tunnel.DATA), device_state(), WALL)
    assert isinstance(actions[0], ConfigurePeers)
    assert actions[0].peers[-1].allowed_ips == (net("10.66.2.1/32"),)


def test_a_reading_from_before_a_peer_was_installed_does_not_miss_it() -> None:
    engine = make_engine()
    contact(engine)
    assert engine.peers_read(1.1, ReadPeers(Tunnel.DATA), device_state(), WALL) == []


def test_peers_of_a_former_run_are_adopted_and_strange_ones_removed() -> None:
    engine = unread_engine()
    mine = peer_state(LOW_KEY, last_handshake=WALL - 10)
    strange = peer_state(HIGH_KEY, allowed_ips=(net("0.0.0.0/0"),))
    actions = engine.peers_read(0.1, ReadPeers(Tunnel.DATA), device_state(mine, strange), WALL)
    assert actions == [
        AddRoutes((net("10.66.2.1/32"),)),
        ConfigurePeers(Tunnel.DATA, (PeerConfig(HIGH_KEY, remove=True),)),
    ]
    (peer,) = engine.status(0.1).peers
    assert peer.state == "up"
    assert peer.last_handshake_s == pytest.approx(10)


def test_what_was_withdrawn_before_a_former_run_is_adopted_leaves_no_route() -> None:
    engine = unread_engine()
    push = MapNotify(77, (record(ttl_min=0, version=6),))
    engine.datagram(0.05, MS1, codec.encode(push))
    mine = peer_state(LOW_KEY, last_handshake=WALL - 10)
    actions = engine.peers_read(0.1, ReadPeers(Tunnel.DATA), device_state(mine), WALL)
    assert not engine.status(0.1).peers
    routes = [one for one in actions if isinstance(one, AddRoutes | DeleteRoutes)]
    assert routes[-1] == DeleteRoutes((net("10.66.2.1/32"),))
    changes = [one for one in actions if isinstance(one, ConfigurePeers)]
    assert changes[-1] == ConfigurePeers(Tunnel.DATA, (PeerConfig(LOW_KEY, remove=True),))


def test_status_never_leaves_a_value_out() -> None:
    engine = make_engine()
    contact(engine)
    status = engine.status(2.0)
    (peer,) = status.peers
    assert peer.state == "pending"
    assert (peer.rx, peer.tx, peer.last_handshake_s) == (None, None, None)
    assert peer.endpoint == "192.0.2.12:51820"
    assert peer.eids == ("10.66.2.1/32",)
    assert [one.name for one in status.servers] == ["ms1", "ms2", "ms3"]
    # One was asked and answered: it is preferred. Nothing is claimed of those never heard.
    assert [one.preferred for one in status.servers].count(True) == 1
    assert all(one.last_heard_s is not None for one in status.servers if one.preferred)
    assert not status.registered
    assert status.counters["flow.opened"] == 1


def test_peers_are_bounded_and_what_finds_no_room_is_refused() -> None:
    engine = make_engine(Settings(max_peers=1))
    contact(engine)
    second = ip_packet(OWN, ipaddress.ip_address("10.66.3.1"), b"")
    asked = question(engine.packet(2.0, second))
    reply = MapReply(asked.nonce, (record("10.66.3.1/32", locator(HIGH_KEY)),))
    actions = engine.datagram(2.01, MS1, codec.encode(reply))
    assert actions == [Refuse(second, Refusal.UNREACHABLE)]
    assert engine.counters["mapping.refused_full"] == 1


def test_a_save_is_never_forgotten_before_a_send() -> None:
    engine = make_engine()
    for number in range(5):
        moved = engine.addresses_changed(
            1.0 + number, (ipaddress.ip_address(f"192.0.2.{50 + number}"),)
        )
        names = kinds(moved)
        assert names.index("Save") < names.index("Send")
        (save,) = [action for action in moved if isinstance(action, Save)]
        assert save.state.nonce == 2 + number
