"""The map servers as a mapping: they come and go while the agent runs."""

import random
from dataclasses import replace

import pytest

from support.agent_values import IDENTITY, LOW_KEY, SERVERS, UNDERLAY, make_engine, server
from wgmap.addresses import Endpoint, host_prefix
from wgmap.lisp import codec
from wgmap.lisp.mark import Mark
from wgmap.lisp.messages import (
    Eid,
    Locator,
    LocatorForm,
    MapNotify,
    MapNotifyAck,
    MapRegister,
    MapReply,
    MapRequest,
    Record,
)
from wgmap_agent.engine.engine import Engine
from wgmap_agent.engine.servers import at_start
from wgmap_agent.engine.types import (
    Action,
    ConfigurePeers,
    Save,
    SavedState,
    Send,
    ServerInfo,
    Tunnel,
    UseServers,
)

MS1, NEW = SERVERS[0], server(4)


def record_of(info: ServerInfo, **fields: object) -> Record:
    """A server as the servers tell of it."""
    at = Locator(info.endpoint.address, info.endpoint.port, info.control_key)
    values: dict[str, object] = {"ttl_min": 60, "authoritative": True, **fields}
    eid = Eid(host_prefix(info.control_address), IDENTITY.instance)
    return Record(eid, (at,), **values)  # type: ignore[arg-type]


def question(engine: Engine) -> tuple[float, MapRequest]:
    """Return the question for the control prefix that is sent in the first seconds, and when."""
    while (deadline := engine.deadline()) is not None and deadline < 5:
        for action in engine.timer(deadline):
            if isinstance(action, Send) and action.datagram[0] >> 4 == 1:
                message = codec.decode(action.datagram)
                assert isinstance(message, MapRequest)
                if message.records[0].eid.prefix == IDENTITY.control_prefix:
                    return deadline, message
    raise AssertionError("not asked")


def told(engine: Engine, *records: Record) -> list[Action]:
    """Answer the engine's question."""
    now, asked = question(engine)
    reply = MapReply(asked.nonce, records)
    return engine.datagram(now + 0.01, MS1.control_address, codec.encode(reply))


def names(engine: Engine) -> list[str]:
    return [one.name for one in engine.status(6.0).servers]


def test_a_new_server_gets_a_tunnel_and_is_heard() -> None:
    engine = make_engine()
    actions = told(engine, *map(record_of, (*SERVERS, NEW)))
    (use,) = [action for action in actions if isinstance(action, UseServers)]
    assert {info.control_key for info in use.servers} == {
        info.control_key for info in (*SERVERS, NEW)
    }
    (configure,) = [action for action in actions if isinstance(action, ConfigurePeers)]
    assert configure.tunnel is Tunnel.CONTROL
    (peer,) = configure.peers
    assert (peer.key, peer.endpoint) == (NEW.control_key, NEW.endpoint)
    assert peer.allowed_ips == (host_prefix(NEW.control_address),)
    # Records carry no names: it is called by its address.
    assert names(engine) == sorted([*(info.name for info in SERVERS), str(NEW.control_address)])
    before = engine.counters["datagram.not_a_server"]  # it is heard
    engine.datagram(6.0, NEW.control_address, b"\x00")
    assert engine.counters["datagram.not_a_server"] == before


def test_a_server_that_left_is_dropped_and_not_heard_any_more() -> None:
    engine = make_engine()
    actions = told(engine, *map(record_of, SERVERS[:2]))
    (configure,) = [action for action in actions if isinstance(action, ConfigurePeers)]
    assert [(peer.key, peer.remove) for peer in configure.peers] == [(SERVERS[2].control_key, True)]
    assert names(engine) == ["ms1", "ms2"]
    engine.datagram(6.0, SERVERS[2].control_address, b"\x00")
    assert engine.counters["datagram.not_a_server"] == 1


def test_a_server_that_moved_gets_its_new_endpoint() -> None:
    engine = make_engine()
    moved = replace(MS1, endpoint=Endpoint(MS1.endpoint.address, 51999))
    actions = told(engine, *map(record_of, (moved, *SERVERS[1:])))
    (configure,) = [action for action in actions if isinstance(action, ConfigurePeers)]
    assert [(peer.key, peer.endpoint, peer.remove) for peer in configure.peers] == [
        (MS1.control_key, moved.endpoint, False)
    ]
    assert names(engine) == ["ms1", "ms2", "ms3"]


def test_a_push_brings_a_change_and_is_acknowledged() -> None:
    engine = make_engine()
    told(engine, *map(record_of, SERVERS))
    push = MapNotify(9, tuple(map(record_of, (*SERVERS, NEW))))
    actions = engine.datagram(6.0, MS1.control_address, codec.encode(push))
    assert any(isinstance(action, UseServers) for action in actions)
    acks = [codec.decode(action.datagram) for action in actions if isinstance(action, Send)]
    assert [ack.nonce for ack in acks if isinstance(ack, MapNotifyAck)] == [9]


REFUSED = {
    "without authority": record_of(NEW, authoritative=False),
    "withdrawn": record_of(NEW, ttl_min=0),
    "of another instance": replace(
        record_of(NEW), eid=Eid(host_prefix(NEW.control_address), IDENTITY.instance + 1)
    ),
    "without a key": replace(
        record_of(NEW), locators=(Locator(NEW.endpoint.address, form=LocatorForm.PLAIN),)
    ),
    "outside the control prefix": replace(
        record_of(NEW), eid=Eid(IDENTITY.prefixes[1], IDENTITY.instance)
    ),
    "with our own address": replace(
        record_of(NEW), eid=Eid(host_prefix(IDENTITY.control_address), IDENTITY.instance)
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_set_with_a_record_that_cannot_be_used_changes_nothing(kind: str) -> None:
    engine = make_engine()
    actions = told(engine, *map(record_of, SERVERS), REFUSED[kind])
    assert not [action for action in actions if isinstance(action, UseServers)]
    assert names(engine) == ["ms1", "ms2", "ms3"]
    assert not engine.status(6.0).peers


def test_the_same_set_changes_nothing_and_is_asked_for_again_within_its_ttl() -> None:
    engine = make_engine()
    actions = told(engine, *map(record_of, SERVERS))
    assert not [a for a in actions if isinstance(a, UseServers | ConfigurePeers)]
    assert live(engine, 0.0, 45.0)
    assert 600 < engine._server_set.deadline() <= 900 + 45
    assert not live(engine, 45.0, 600.0), "all have answered"


def test_a_revoked_key_is_no_server() -> None:
    engine = make_engine()
    at = Locator(NEW.endpoint.address, 51822, LOW_KEY, key_revoked=True)
    told(engine, *map(record_of, SERVERS), replace(record_of(NEW), locators=(at,)))
    assert names(engine) == ["ms1", "ms2", "ms3"]


def test_at_start_what_was_learned_counts_beside_what_was_configured() -> None:
    moved = replace(MS1, name="other", endpoint=Endpoint(MS1.endpoint.address, 51999))
    merged = at_start(SERVERS[:2], (moved, NEW))
    assert merged == (replace(moved, name="ms1"), NEW, SERVERS[1])


def test_at_start_a_server_that_was_replaced_has_its_new_key() -> None:
    """Were the configured key taken, nobody would answer once all servers were replaced."""
    replaced = replace(MS1, name=str(MS1.control_address), control_key=NEW.control_key)
    assert at_start(SERVERS, (replaced,)) == (replaced, *SERVERS[1:])
    assert at_start(SERVERS, ()) == SERVERS


def saves(actions: list[Action]) -> list[SavedState]:
    return [action.state for action in actions if isinstance(action, Save)]


def test_what_was_learnt_is_saved_and_known_at_the_next_start() -> None:
    engine = make_engine()
    (saved,) = saves(told(engine, *map(record_of, (SERVERS[0], NEW))))
    assert {info.control_key for info in saved.servers} == {MS1.control_key, NEW.control_key}
    again = Engine(IDENTITY, saved, random.Random(2))
    again.start(0.0, UNDERLAY)
    assert {info.control_key for info in again.servers()} == {
        *(info.control_key for info in (*SERVERS, NEW))
    }
    # Those configured are saved by nobody: the file says it.
    (saved,) = saves(told(again, *map(record_of, SERVERS)))
    assert saved.servers == ()


def test_the_servers_of_the_start_do_not_take_the_address_of_one_that_replaced_them() -> None:
    replaced = replace(MS1, control_key=NEW.control_key)
    engine = make_engine()
    told(engine, *map(record_of, (replaced, *SERVERS[1:])))
    now = 6.0
    while now < 120 and engine.counters["servers.changed"] < 2:
        now = max(now, engine.deadline() or now)
        engine.timer(now)
    assert engine.counters["servers.changed"] == 1
    assert {info.control_key for info in engine.servers()} == {
        NEW.control_key,
        *(info.control_key for info in SERVERS[1:]),
    }


def asked(actions: list[Action]) -> set[str]:
    """Return the servers that are asked for the control prefix."""
    found = set()
    for action in actions:
        if isinstance(action, Send) and action.datagram[0] >> 4 == 1:
            message = codec.decode(action.datagram)
            assert isinstance(message, MapRequest)
            if message.records[0].eid.prefix == IDENTITY.control_prefix:
                found.add(action.server)
    return found


def answer(engine: Engine, actions: list[Action], at: float, *mute: ServerInfo) -> None:
    """Answer whatever servers are asked, but a question for their set by the mute ones."""
    for action in actions:
        if not isinstance(action, Send):
            continue
        info = next(info for info in SERVERS if info.name == action.server)
        message = codec.decode(action.datagram)
        if isinstance(message, MapRegister):
            reply: MapNotify | MapReply = MapNotify(message.nonce, message.records)
        elif not isinstance(message, MapRequest):
            continue
        elif message.records[0].eid.prefix != IDENTITY.control_prefix:
            reply = MapReply(message.nonce, ())
        elif info not in mute:
            reply = MapReply(message.nonce, tuple(map(record_of, SERVERS)))
        else:
            continue
        engine.datagram(at, info.control_address, codec.encode(reply))


def live(engine: Engine, now: float, until: float, *mute: ServerInfo) -> set[str]:
    """Let time pass and servers answer; return who was asked for the control prefix.

    The mute ones answer whatever else they are asked, as one whose part of the question was lost.
    """
    found: set[str] = set()
    while (deadline := engine.deadline()) is not None and (now := max(now, deadline)) < until:
        actions = engine.timer(now)
        found |= asked(actions)
        answer(engine, actions, now + 0.01, *mute)
    return found


ALL = {info.name for info in SERVERS}


def test_all_servers_are_asked_again_where_the_responder_of_one_is_new() -> None:
    """Each pushes changes to those who asked it: the death of one leaves the others."""
    engine = settled()
    for number in (1, 2):
        mark = Mark(bytes([number]) * 16, 0).xtr()
        news = codec.encode(MapNotify(number, (), xtr=mark))
        engine.datagram(60.0 + number, MS1.control_address, news)
    # That another server tells of the set meanwhile says nothing about this one.
    push = codec.encode(MapNotify(9, tuple(map(record_of, SERVERS))))
    engine.datagram(62.5, SERVERS[1].control_address, push)
    assert live(engine, 63.0, 95.0) == ALL
    assert not live(engine, 95.0, 600.0)


def settled() -> Engine:
    """Return an agent that every server knows, after a minute."""
    engine = make_engine()
    assert live(engine, 0.0, 60.0) == ALL
    assert sum(one.preferred for one in engine.status(60.0).servers) == 1
    return engine


def test_a_server_that_did_not_hear_the_question_is_asked_again_and_more_seldom() -> None:
    engine = make_engine()
    live(engine, 0.0, 60.0, SERVERS[2])
    before = engine.counters["servers.asked"]
    assert 2 < before < 8
    live(engine, 60.0, 600.0, SERVERS[2])
    assert before < engine.counters["servers.asked"] < before + 5
    assert live(engine, 600.0, 1600.0) == ALL
    known = engine.counters["servers.asked"]
    assert not live(engine, 1600.0, 2000.0)
    assert engine.counters["servers.asked"] == known


def test_a_change_that_is_told_without_authority_is_asked_about() -> None:
    """The server that tells it has its acknowledgement, and does not tell it again."""
    engine = settled()
    unsure = tuple(record_of(info, authoritative=False) for info in SERVERS[:2])
    actions = engine.datagram(60.0, MS1.control_address, codec.encode(MapNotify(9, unsure)))
    assert not any(isinstance(action, UseServers) for action in actions)
    assert live(engine, 60.0, 91.0) == ALL


def test_whoever_is_new_is_asked_and_nobody_else_knows_less_when_one_has_gone() -> None:
    engine = settled()
    push = codec.encode(MapNotify(9, tuple(map(record_of, SERVERS[:2]))))
    engine.datagram(60.0, MS1.control_address, push)
    assert not live(engine, 60.0, 600.0), "both that are left have answered"
    push = codec.encode(MapNotify(10, tuple(map(record_of, SERVERS))))
    engine.datagram(600.0, MS1.control_address, push)
    assert len(live(engine, 600.0, 631.0)) == len(SERVERS)
