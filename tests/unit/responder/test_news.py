"""What agents missed: a new responder, and revocations while they were away."""

import ipaddress

import pytest

from support.tables import (
    Network,
    control,
    enrolled,
    key,
    mapped,
    notifies,
    prefix,
    request,
    told,
)
from wgmap.lisp.codec import decode, encode
from wgmap.lisp.mark import MARK_BYTES, NOTHING_HELD, UNKNOWN, Mark, marked
from wgmap.lisp.messages import (
    Eid,
    MapNotify,
    MapNotifyAck,
    MapRegister,
    MapRequest,
    Record,
    RequestRecord,
)
from wgmap_cluster.backup.restoring import REVOCATION_GAP
from wgmap_cluster.feed import Forward
from wgmap_cluster.fsm.rows import Change, RevocationRow, Table
from wgmap_cluster.responder.actions import Action
from wgmap_cluster.responder.news import MAX_LOOKED_AT, MAX_RECORDS

OWN = Record(Eid(ipaddress.ip_network("10.66.1.1/32")))
ROWS = (
    enrolled("a1"),
    enrolled("a2"),
    enrolled("a4", instance=4),
    mapped("a1", "10.66.1.1/32"),
    mapped("a2", "10.66.2.1/32"),
    mapped("a4", "10.66.4.1/32", instance=4),
)


def gone(number: int, instance: int = 0, *, held: bool = True) -> Change:
    name = f"x{number}"
    where = (prefix(f"10.66.200.{number % 256}/32"),)
    row = RevocationRow(name, instance, where, key(name) if held else b"")
    return Change(Table.REVOCATIONS, number, row)


def question(mark: Mark, *, refresh: bool = False, instance: int = 0) -> bytes:
    eid = Eid(ipaddress.ip_network("10.66.2.1/32"), instance)
    rloc = ipaddress.ip_address(control("a1"))
    records = (RequestRecord(eid),)
    return encode(MapRequest(7, (rloc,), records, smr_invoked=refresh, xtr=mark.xtr()))


def register(mark: Mark) -> bytes:
    return encode(MapRegister(3, (OWN,), xtr=mark.xtr()))


def acknowledgement(notify: MapNotify, mark: Mark) -> bytes:
    return encode(MapNotifyAck(notify.nonce, notify.records, xtr=mark.xtr()))


def news(actions: list[Action], name: str = "a1") -> list[MapNotify]:
    """Return the messages with a mark that go to an agent."""
    pushed = [notify for to, notify in notifies(actions) if to == control(name)]
    return [notify for notify in pushed if notify.xtr is not None]


def mark_of(notify: MapNotify) -> Mark:
    assert notify.xtr is not None
    return Mark.of(notify.xtr)


def introduced(network: Network) -> Mark:
    """Have a1 hear of everything; returns the mark of an agent that missed nothing."""
    (notify,) = news(network.send("a1", question(Mark(UNKNOWN, NOTHING_HELD))))
    mark = mark_of(notify)._replace(since=0)
    network.send("a1", acknowledgement(notify, mark))
    return mark


def revoked_keys(notify: MapNotify) -> set[bytes]:
    return {at.key for one in notify.records for at in one.locators if at.key and at.key_revoked}


def test_who_holds_nothing_is_told_the_incarnation_and_the_number_alone() -> None:
    network = Network(*ROWS, gone(1), gone(2))
    (notify,) = news(network.send("a1", question(Mark(UNKNOWN, NOTHING_HELD))))
    mark = mark_of(notify)
    assert (notify.records, mark.number, mark.since) == ((), 2, 2)
    assert mark.incarnation != UNKNOWN


def test_who_missed_nothing_is_told_nothing() -> None:
    network = Network(*ROWS, gone(1))
    mark = introduced(network)
    assert news(network.send("a1", question(mark))) == []
    # One that is not ours, or of an earlier version.
    actions = network.send("a1", request("10.66.2.1/32"))
    assert (len(actions), news(actions)) == (2, [])


@pytest.mark.parametrize("make", [question, register])
def test_another_incarnation_is_told_whatever_the_message(make: object) -> None:
    assert callable(make)
    network = Network(*ROWS, gone(1))
    network.service.attached(network.now)
    mark = introduced(network)
    (notify,) = news(network.send("a1", make(mark._replace(incarnation=b"another one here"))))
    assert mark_of(notify) == mark._replace(since=1)


def test_a_register_is_handed_on_with_its_mark_and_a_signed_one_has_none() -> None:
    network = Network(*ROWS)
    network.service.attached(network.now)
    datagram = register(Mark(UNKNOWN, 0))
    actions = network.send("a1", datagram)
    assert [each.message for each in told(actions)] == [Forward((control("a1"), 4342), datagram)]
    signed = datagram[:12] + bytes((0, 2, 0, 16)) + bytes(16) + datagram[16:]
    assert news(Network(*ROWS).send("a1", signed)) == []


def test_what_was_missed_is_told_for_the_own_instance_alone() -> None:
    network = Network(*ROWS, gone(1), gone(2, instance=4), gone(3), gone(4, held=False))
    mark = introduced(network)
    (notify,) = news(network.send("a1", question(mark._replace(number=1))))
    assert revoked_keys(notify) == {key("x3")}
    assert (mark_of(notify).since, mark_of(notify).number) == (1, 4)
    (notify,) = news(network.send("a4", question(mark._replace(number=0), instance=4)), "a4")
    assert revoked_keys(notify) == {key("x2")}


def test_many_are_told_piece_by_piece_as_they_are_acknowledged() -> None:
    count = 3 * MAX_RECORDS + 5
    network = Network(*ROWS, *map(gone, range(1, count + 1)))
    mark = introduced(network)._replace(number=0)
    seen: set[bytes] = set()
    messages = news(network.send("a1", question(mark)))
    while messages:
        (notify,) = messages
        assert len(encode(notify)) < 4096
        assert mark_of(notify).since == mark.number
        assert not seen & revoked_keys(notify)
        seen |= revoked_keys(notify)
        mark = mark._replace(number=mark_of(notify).number)
        messages = news(network.send("a1", acknowledgement(notify, mark)))
    assert len(seen) == count


def test_those_of_other_instances_are_passed_over_in_bounded_turns() -> None:
    network = Network(*ROWS, *(gone(number, instance=4) for number in range(1, 2001)))
    mark = introduced(network)._replace(number=0)
    (notify,) = news(network.send("a1", question(mark)))
    assert (notify.records, mark_of(notify).number) == ((), MAX_LOOKED_AT)
    mark = mark._replace(number=MAX_LOOKED_AT)
    (notify,) = news(network.send("a1", acknowledgement(notify, mark)))
    assert (notify.records, mark_of(notify).number) == ((), 2000)


def test_news_are_repeated_but_never_twice_at_a_time() -> None:
    network = Network(*ROWS, gone(1))
    mark = introduced(network)._replace(number=0)
    assert len(news(network.send("a1", question(mark)))) == 1
    assert news(network.send("a1", question(mark))) == []
    assert len(news(network.tick(0.2))) == 2
    network.tick(60)  # given up
    network.lease(1)
    assert len(news(network.send("a1", question(mark)))) == 1


def test_without_a_lease_nothing_is_told() -> None:
    network = Network(*ROWS, gone(1))
    mark = introduced(network)._replace(number=0)
    network.now += 3600
    assert news(network.send("a1", question(mark))) == []


def test_who_knows_of_more_than_there_is_is_set_back() -> None:
    network = Network(*ROWS, gone(1))
    mark = introduced(network)
    (notify,) = news(network.send("a1", question(mark._replace(number=7))))
    assert (notify.records, mark_of(notify).since, mark_of(notify).number) == ((), 1, 1)


def test_a_revocation_carries_its_number_to_all_agents() -> None:
    network = Network(*ROWS, gone(1))
    (notify,) = news(network.change(gone(2)))
    assert (mark_of(notify).since, mark_of(notify).number) == (1, 2)
    assert revoked_keys(notify) == {key("x2")}


def test_a_gap_in_the_numbers_costs_no_turns() -> None:
    """After a restore revocations go on 2^20 higher: one message, not a thousand, bridges it."""
    after = 3 + REVOCATION_GAP
    network = Network(*ROWS, gone(3))
    mark = introduced(network)
    (notify,) = news(network.change(gone(after)))
    assert (mark_of(notify).since, mark_of(notify).number) == (3, after)
    network.send("a1", acknowledgement(notify, mark._replace(number=after)))
    # And so for an agent that was away.
    (notify,) = news(network.send("a1", question(mark._replace(number=1))))
    assert (mark_of(notify).since, mark_of(notify).number) == (1, after)
    assert revoked_keys(notify) == {key("x3"), key(f"x{after}")}


def test_the_mark_is_the_end_of_every_message() -> None:
    mark = Mark(bytes(range(16)), 9, 4)
    unmarked = Mark(UNKNOWN, 0)
    for datagram in (
        question(unmarked),
        register(unmarked),
        acknowledgement(MapNotify(9, (OWN,)), unmarked),
    ):
        changed = marked(datagram, mark)
        message = decode(changed)
        assert isinstance(message, MapRequest | MapRegister | MapNotifyAck)
        assert message.xtr is not None
        assert Mark.of(message.xtr) == mark == Mark.decode(changed[-MARK_BYTES:])
