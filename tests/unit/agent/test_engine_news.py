"""What a server's mark brings: questions to a new responder, revocations that were missed."""

import ipaddress
import random

import pytest

from support.agent_values import (
    HIGH_KEY,
    IDENTITY,
    LOW_KEY,
    UNDERLAY,
    locator,
    make_engine,
    read_nothing,
    record,
    server,
)
from wgmap.lisp import codec
from wgmap.lisp.mark import NOTHING_HELD, OF_REGISTER, UNKNOWN, Mark
from wgmap.lisp.messages import MapNotify, MapNotifyAck, MapRegister, MapRequest, Message, Record
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.engine import Engine
from wgmap_agent.engine.revocations import MAX_KEYS, Revocations
from wgmap_agent.engine.types import Action, ConfigurePeers, Save, SavedState, Send, Tunnel

MS1, MS2 = server(1).control_address, server(2).control_address
FIRST, SECOND = b"first incarnatio", b"second incarnati"


def messages(actions: list[Action], name: str | None = None) -> list[Message]:
    sent = [one for one in actions if isinstance(one, Send) and name in (None, one.server)]
    return [codec.decode(one.datagram) for one in sent]


def marks(actions: list[Action], name: str | None = None) -> list[Mark]:
    found = []
    for message in messages(actions, name):
        assert isinstance(message, MapRequest | MapRegister | MapNotifyAck)
        assert message.xtr is not None, "every message to a server has a mark"
        mark = Mark.of(message.xtr)
        assert mark.since == (OF_REGISTER if isinstance(message, MapRegister) else 0)
        found.append(mark._replace(since=0))
    return found


def push(engine: Engine, now: float, mark: Mark, *records: Record) -> list[Action]:
    notify = MapNotify(99, records, xtr=mark.xtr())
    return engine.datagram(now, MS1, codec.encode(notify))


def revoked(key: bytes) -> Record:
    return record("10.66.9.1/32", locator(key, key_revoked=True), ttl_min=0, version=0)


def with_peer(engine: Engine, now: float = 1.0) -> None:
    """Have a peer installed, by a push."""
    engine.datagram(now, MS1, codec.encode(MapNotify(5, (record("10.66.2.1/32", locator()),))))
    assert len(engine.status(now).peers) == 1


def test_an_agent_without_a_past_asks_for_the_number_alone() -> None:
    engine = Engine(IDENTITY, SavedState(), random.Random(1))
    assert set(marks(engine.start(0.0, UNDERLAY))) == {Mark(UNKNOWN, NOTHING_HELD)}
    read_nothing(engine)
    actions = push(engine, 1.0, Mark(FIRST, 7, since=7))
    assert [one.state.revocation for one in actions if isinstance(one, Save)] == [7]
    assert marks(actions, "ms1") == [Mark(FIRST, 7)]


def test_the_saved_number_goes_to_every_server() -> None:
    engine = Engine(IDENTITY, SavedState(3, 7), random.Random(1))
    assert set(marks(engine.start(0.0, UNDERLAY))) == {Mark(UNKNOWN, 7)}
    probes = marks(engine.timer(2.0))
    assert set(probes) == {Mark(UNKNOWN, 7)}


def test_each_server_is_told_its_own_incarnation() -> None:
    engine = make_engine()
    push(engine, 1.0, Mark(FIRST, 0))
    engine.datagram(1.0, MS2, codec.encode(MapNotify(98, (), xtr=Mark(SECOND, 0).xtr())))
    actions = engine.resolve(1.5, IDENTITY.overlay[0][77])
    assert marks(actions, "ms1") == [Mark(FIRST, 0)]
    assert marks(actions, "ms2") == [Mark(SECOND, 0)]
    assert marks(actions, "ms3") == [Mark(UNKNOWN, 0)]


def test_a_new_incarnation_has_all_installed_peers_asked_for_again() -> None:
    engine = make_engine()
    with_peer(engine)
    push(engine, 1.0, Mark(FIRST, 0))
    now = 20.0  # long after what the first word of a server brings
    engine.timer(now)
    push(engine, now, Mark(FIRST, 0))
    assert "server.new_incarnation" not in engine.status(now).counters
    push(engine, now, Mark(SECOND, 0))
    assert engine.status(now).counters["server.new_incarnation"] == 1
    asked = [one for one in messages(engine.timer(now + 6)) if isinstance(one, MapRequest)]
    assert "10.66.2.1/32" in {str(one.records[0].eid.prefix) for one in asked}


def test_what_was_missed_is_dropped_saved_and_acknowledged() -> None:
    engine = Engine(IDENTITY, SavedState(3, 7), random.Random(1))
    engine.start(0.0, UNDERLAY)
    read_nothing(engine)
    with_peer(engine)
    actions = push(engine, 2.0, Mark(FIRST, 9, since=7), revoked(LOW_KEY))
    removed = [one for one in actions if isinstance(one, ConfigurePeers)]
    assert [(one.tunnel, one.peers[0].key) for one in removed] == [(Tunnel.DATA, LOW_KEY)]
    assert removed[0].peers[0].remove
    assert [one.state for one in actions if isinstance(one, Save)] == [SavedState(4, 9, (LOW_KEY,))]
    (ack,) = messages(actions, "ms1")
    assert isinstance(ack, MapNotifyAck)
    assert (ack.nonce, marks(actions)) == (99, [Mark(FIRST, 9)])


def test_a_gap_is_not_passed_over() -> None:
    engine = Engine(IDENTITY, SavedState(3, 7), random.Random(1))
    engine.start(0.0, UNDERLAY)
    read_nothing(engine)
    actions = push(engine, 2.0, Mark(FIRST, 12, since=11), revoked(LOW_KEY))
    assert marks(actions) == [Mark(FIRST, 7)]  # so that the server tells 8 to 11 as well
    assert [one.state for one in actions if isinstance(one, Save)] == [SavedState(4, 7, (LOW_KEY,))]
    assert marks(push(engine, 2.1, Mark(FIRST, 10, since=5))) == [Mark(FIRST, 10)]
    assert marks(push(engine, 2.2, Mark(FIRST, 9, since=8))) == [Mark(FIRST, 10)]


def test_a_cluster_from_a_backup_sets_the_number_back() -> None:
    engine = Engine(IDENTITY, SavedState(3, 7), random.Random(1))
    engine.start(0.0, UNDERLAY)
    read_nothing(engine)
    assert marks(push(engine, 2.0, Mark(FIRST, 5, since=5))) == [Mark(FIRST, 5)]


def test_a_revoked_key_is_never_taken_again() -> None:
    engine = make_engine()
    push(engine, 1.0, Mark(FIRST, 1), revoked(LOW_KEY))
    late = MapNotify(6, (record("10.66.2.1/32", locator(), version=4000),))
    engine.datagram(1.1, MS2, codec.encode(late))
    assert engine.status(1.1).peers == ()
    assert engine.status(1.1).counters["record.refused_revoked_key"] == 1
    other = MapNotify(7, (record("10.66.2.1/32", locator(HIGH_KEY)),))
    engine.datagram(1.2, MS2, codec.encode(other))
    assert [one.key for one in engine.status(1.2).peers] == [str(HIGH_KEY)]


def test_an_old_revocation_leaves_the_prefix_to_its_new_owner() -> None:
    engine = make_engine()
    with_peer(engine)
    old = record("10.66.2.1/32", locator(HIGH_KEY, key_revoked=True), ttl_min=0, version=0)
    push(engine, 2.0, Mark(FIRST, 1), old)
    assert [one.key for one in engine.status(2.0).peers] == [str(LOW_KEY)]


@pytest.mark.parametrize("stored", [(), (record("10.66.77.0/24", version=9),)])
def test_an_older_register_recovers_also_where_other_prefixes_stand(
    stored: tuple[Record, ...],
) -> None:
    engine = Engine(IDENTITY, SavedState(3, 7), random.Random(1))
    first = engine.start(0.0, UNDERLAY)
    read_nothing(engine)
    (asked,) = [one for one in first if isinstance(one, Send)]
    address = next(one.control_address for one in IDENTITY.servers if one.name == asked.server)
    answer = MapNotify(900, stored, xtr=Mark(UNKNOWN, 7, since=OF_REGISTER).xtr())
    actions = engine.datagram(0.1, address, codec.encode(answer))
    registers = [one for one in messages(actions) if isinstance(one, MapRegister)]
    assert [one.nonce for one in registers] == [901]
    assert engine.status(0.1).peers == ()


@pytest.mark.parametrize("number", [0, 7])
def test_news_that_come_again_are_no_answer_to_a_register(number: int) -> None:
    """They have our own mark by then, and a nonce of 64 random bits."""
    engine = Engine(IDENTITY, SavedState(3), random.Random(1))
    engine.start(0.0, UNDERLAY)
    read_nothing(engine)
    for address in (MS1, MS2):
        mark = Mark(FIRST, number, since=number)
        news = codec.encode(MapNotify(0xE000_0000_0000_0000, (), xtr=mark.xtr()))
        for at in (0.1, 0.15, 0.25):
            actions = engine.datagram(at, address, news)
            acks = [one for one in messages(actions) if isinstance(one, MapNotifyAck)]
            assert [one.nonce for one in acks] == [0xE000_0000_0000_0000]
    assert engine.counters["register.counter_recovered"] == 0
    sent = [one for one in messages(engine.timer(1.0)) if isinstance(one, MapRegister)]
    assert {one.nonce for one in sent} == {4}


def test_news_of_a_former_key_of_ones_own_prefix_are_no_answer_to_a_register() -> None:
    engine = Engine(IDENTITY, SavedState(3, 4), random.Random(1))
    engine.start(0.0, UNDERLAY)
    read_nothing(engine)
    old_key = locator(LOW_KEY, key_revoked=True)
    former = record(str(IDENTITY.prefixes[0]), old_key, ttl_min=0, version=0)
    for address in (MS1, MS2):
        news = MapNotify(1 << 63, (former,), xtr=Mark(FIRST, 5, since=4).xtr())
        engine.datagram(0.1, address, codec.encode(news))
    assert engine.counters["register.counter_recovered"] == 0


def test_the_answer_to_a_register_is_no_news() -> None:
    engine = make_engine()
    own = tuple(record(str(prefix)) for prefix in IDENTITY.prefixes)
    notify = MapNotify(1, own, xtr=Mark(SECOND, 50, since=50).xtr())
    for address in (MS1, MS2):
        engine.datagram(0.1, address, codec.encode(notify))
    assert set(marks(engine.timer(2.0))) == {Mark(UNKNOWN, NOTHING_HELD)}


def test_a_register_of_which_locators_were_left_out_stands() -> None:
    engine = Engine(IDENTITY, SavedState(3), random.Random(1))
    underlay = (*UNDERLAY, ipaddress.ip_address("2001:db8:6::11"))
    first = engine.start(0.0, underlay)
    read_nothing(engine)
    (asked,) = [one for one in first if isinstance(one, Send)]
    address = next(one.control_address for one in IDENTITY.servers if one.name == asked.server)
    at = locator(IDENTITY.data_key, str(UNDERLAY[0]))
    kept = tuple(record(str(prefix), at) for prefix in IDENTITY.prefixes)
    actions = engine.datagram(0.1, address, codec.encode(MapNotify(4, kept)))
    assert messages(actions) == []
    assert engine.status(0.1).registered


def test_a_revoked_key_is_refused_by_the_next_run_as_well() -> None:
    """A server out of touch with the quorum may go on serving it for long."""
    engine = Engine(IDENTITY, SavedState(3, 7), random.Random(1))
    engine.start(0.0, UNDERLAY)
    read_nothing(engine)
    actions = push(engine, 2.0, Mark(FIRST, 9, since=7), revoked(LOW_KEY))
    (saved,) = [one.state for one in actions if isinstance(one, Save)]
    again = Engine(IDENTITY, saved, random.Random(2))
    again.start(0.0, UNDERLAY)
    read_nothing(again)
    again.datagram(1.0, MS1, codec.encode(MapNotify(5, (record("10.66.2.1/32", locator()),))))
    assert again.status(2.0).peers == ()
    assert again.counters["record.refused_revoked_key"]


def test_revoked_keys_are_bounded_and_the_oldest_makes_room() -> None:
    revocations = Revocations(0)
    keys = [PublicKey(number.to_bytes(32)) for number in range(MAX_KEYS + 1)]
    revocations.remember(keys)
    assert keys[0] not in revocations
    assert revocations.keys == tuple(keys[1:])
    assert Revocations(0, revocations.keys).keys == revocations.keys
