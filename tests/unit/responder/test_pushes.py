"""What agents are told unasked: introductions, changes, withdrawals, revocations."""

import ipaddress
from dataclasses import replace

import pytest

from support.tables import (
    SETTINGS,
    Network,
    control,
    enrolled,
    key,
    mapped,
    notifies,
    prefix,
    replies,
    revocation,
    sent,
    server,
    unmapped,
)
from wgmap.lisp.codec import decode, encode
from wgmap.lisp.messages import Action as MapReplyAction
from wgmap.lisp.messages import Eid, MapNotify, MapNotifyAck, MapRequest
from wgmap_cluster.feed import Changes
from wgmap_cluster.fsm.rows import Change, InstanceRow, MappingRow, Table
from wgmap_cluster.responder.actions import Action
from wgmap_cluster.responder.announcer import (
    CHANGE_ATTEMPTS,
    INTRODUCTION_ATTEMPTS,
    REVOCATION_ATTEMPTS,
)

THREE = (
    enrolled("a1"),
    enrolled("a2"),
    enrolled("a3"),
    mapped("a1", "10.66.1.1/32"),
    mapped("a1", "fd66::1/128"),
    mapped("a2", "10.66.2.1/32"),
    mapped("a3", "10.66.3.1/32"),
)


def told(actions: list[Action], name: str) -> list[MapNotify]:
    """Return what an agent was pushed."""
    return [notify for address, notify in notifies(actions) if address == control(name)]


def prefixes(notify: MapNotify) -> set[str]:
    return {str(record.eid.prefix) for record in notify.records}


def settled(*rows: Change) -> Network:
    """A network in which a1 has asked for a2, and all pushes are acknowledged."""
    network = Network(*THREE, *rows)
    network.acknowledge(network.ask("a1", "10.66.2.1/32"))
    return network


# ----------------------------------------------------------------------------- introductions


def test_the_destination_is_told_of_the_whole_requester_before_the_answer_goes() -> None:
    network = Network(*THREE)
    actions = network.ask("a1", "10.66.2.1/32")
    assert [type(decode(s.datagram)).__name__ for s in sent(actions)] == ["MapNotify", "MapReply"]
    (push,) = told(actions, "a2")
    assert prefixes(push) == {"10.66.1.1/32", "fd66::1/128"}
    assert push.records[0].locators[0].key == key("a1")
    assert (push.authentication.algorithm, push.authentication.data) == (0, b"")
    assert sent(actions)[0].destination == (control("a2"), 4342)


def test_a_push_is_repeated_with_growing_pauses_until_it_is_given_up() -> None:
    network = Network(*THREE)
    (first,) = told(network.ask("a1", "10.66.2.1/32"), "a2")
    start = network.now
    times = []
    for _ in range(3000):
        again = told(network.tick(0.01), "a2")
        assert all(notify == first for notify in again)
        times += [network.now - start] * len(again)
    assert times == pytest.approx([0.05, 0.15, 0.35, 0.75, 1.55, 3.15, 6.15], abs=0.08)
    assert len(times) == INTRODUCTION_ATTEMPTS - 1
    assert network.service.counters["push.given_up"] == 1
    assert len(told(network.tick(30), "a2")) == 0


def test_only_the_agents_own_acknowledgement_with_the_nonce_ends_a_push() -> None:
    network = Network(*THREE)
    (push,) = told(network.ask("a1", "10.66.2.1/32"), "a2")
    network.send("a3", encode(MapNotifyAck(push.nonce, push.records)))
    network.send("a2", encode(MapNotifyAck(push.nonce ^ 1, push.records)))
    assert network.service.counters["push.unknown_ack"] == 2
    assert len(told(network.tick(0.06), "a2")) == 1
    network.send("a2", encode(MapNotifyAck(push.nonce, push.records)))
    assert network.service.counters["push.acknowledged"] == 1
    assert told(network.tick(60), "a2") == []


def test_one_push_is_out_for_a_pair_and_the_newer_takes_its_place() -> None:
    network = Network(*THREE)
    (first,) = told(network.ask("a1", "10.66.2.1/32"), "a2")
    (second,) = told(network.ask("a1", "10.66.2.1/32"), "a2")
    assert first.nonce != second.nonce
    assert {notify.nonce for notify in told(network.tick(60), "a2")} == {second.nonce}


def test_nobody_is_introduced_who_has_registered_nothing_or_asks_for_itself() -> None:
    network = Network(*THREE, enrolled("a6"))
    assert notifies(network.ask("a6", "10.66.2.1/32")) == []
    assert notifies(network.ask("a1", "10.66.1.1/32")) == []
    assert notifies(network.ask("a1", "10.66.99.1/32")) == []


def test_introductions_are_limited_for_requester_and_destination_and_counted() -> None:
    pushes = replace(SETTINGS.pushes, from_each=(1.0, 3), to_each=(1.0, 5))
    settings = replace(SETTINGS, pushes=pushes)
    network = Network(*THREE, settings=settings)
    asked = [network.ask("a1", "10.66.2.1/32") for _ in range(10)]
    assert sum(bool(notifies(actions)) for actions in asked) == 3
    assert all(replies(actions) for actions in asked)
    assert network.service.counters["push.limited_requester"] == 7
    asked = [network.ask("a3", "10.66.2.1/32") for _ in range(3)]
    assert sum(bool(notifies(actions)) for actions in asked) == 2
    assert network.service.counters["push.limited_destination"] == 1


# ----------------------------------------------------------------------------------- changes


def test_a_change_is_pushed_at_once_to_who_asked_and_to_who_was_pushed() -> None:
    network = settled()
    actions = network.change(mapped("a2", "10.66.2.1/32", version=2, rloc="192.0.2.99"))
    (push,) = told(actions, "a1")
    assert [str(at.address) for at in push.records[0].locators] == ["192.0.2.99"]
    assert push.records[0].version == 2
    assert told(actions, "a3") == told(actions, "a2") == []
    actions = network.change(mapped("a1", "10.66.1.1/32", version=2, rloc="192.0.2.98"))
    (push,) = told(actions, "a2")  # it holds the requester, though it never asked
    assert prefixes(push) == {"10.66.1.1/32", "fd66::1/128"}
    repeated = told(network.tick(60), "a2")
    assert len(repeated) == CHANGE_ATTEMPTS - 1


def test_who_asked_longer_ago_than_the_ttl_is_not_told() -> None:
    network = settled()
    network.now += 3601
    assert notifies(network.change(mapped("a2", "10.66.2.1/32", version=2))) == []


def test_an_unchanged_row_is_no_change() -> None:
    network = settled()
    assert network.change(mapped("a2", "10.66.2.1/32")) == []


def test_changes_in_pieces_are_told_when_their_index_is_complete() -> None:
    network = settled()
    moved = mapped("a2", "10.66.2.1/32", version=2)
    assert network.service.feed(Changes(9, (moved,), more=True), network.now) == []
    assert network.service.index == 1
    added = mapped("a2", "fd66::2/128", version=2)
    (push,) = told(network.service.feed(Changes(9, (added,)), network.now), "a1")
    assert prefixes(push) == {"10.66.2.1/32", "fd66::2/128"}
    assert network.service.index == 9


def test_a_withdrawal_has_ttl_0_and_its_key_and_goes_along_with_what_follows() -> None:
    network = settled(mapped("a2", "fd66::2/128"))
    (push,) = told(network.change(unmapped("fd66::2/128")), "a1")
    gone, left = push.records
    assert (str(gone.eid.prefix), gone.ttl_min) == ("fd66::2/128", 0)
    # Whose it was, for those who hold parts of it. Not revoked: that would take the peer away.
    assert [(at.key, at.key_revoked) for at in gone.locators] == [(key("a2"), False)]
    assert (str(left.eid.prefix), left.ttl_min) == ("10.66.2.1/32", 60)
    # Not acknowledged; the next change takes the push's place and must not lose it.
    (push,) = told(network.change(mapped("a2", "10.66.2.1/32", version=2)), "a1")
    assert [record.ttl_min for record in push.records] == [0, 60]
    (push,) = told(network.change(mapped("a2", "fd66::2/128", version=3)), "a1")
    assert [record.ttl_min for record in push.records] == [60, 60]


def test_the_last_mapping_of_a_peer_is_withdrawn_from_all_who_hold_it() -> None:
    network = settled()
    (push,) = told(network.change(unmapped("10.66.2.1/32")), "a1")
    assert [(str(r.eid.prefix), r.ttl_min) for r in push.records] == [("10.66.2.1/32", 0)]


def test_a_new_more_specific_mapping_is_pushed_to_who_holds_the_covering_one() -> None:
    network = Network(*THREE, enrolled("a4"), enrolled("a5"), mapped("a4", "10.66.40.0/24"))
    network.acknowledge(network.ask("a1", "10.66.40.7/32"))
    actions = network.change(mapped("a5", "10.66.40.7/32"))
    pushed = {name for notify in told(actions, "a1") for name in prefixes(notify)}
    assert pushed == {"10.66.40.7/32"}
    network.acknowledge(actions)
    (push,) = told(network.change(mapped("a5", "10.66.40.7/32", version=2)), "a1")
    assert push.records[0].version == 2  # and it is told of its changes from then on


def test_who_missed_an_eid_is_told_when_it_appears() -> None:
    network = Network(*THREE, enrolled("a4"))
    network.ask("a1", "10.66.4.1/32")
    (push,) = told(network.change(mapped("a4", "10.66.4.0/24")), "a1")
    assert prefixes(push) == {"10.66.4.0/24"}
    network.ask("a3", "10.66.5.1/32")
    network.now += 61
    assert told(network.change(mapped("a4", "10.66.5.0/24")), "a3") == []


def test_many_changes_of_one_subject_are_put_together() -> None:
    network = settled()
    pushes = []
    for version in range(2, 102):
        pushes += told(network.change(mapped("a2", "10.66.2.1/32", version=version)), "a1")
    assert len(pushes) < 30
    later = told(network.tick(1.0), "a1")
    assert later[-1].records[0].version == 101
    assert network.service.counters["push.put_together"] >= 1


def test_a_plain_client_is_asked_to_ask_again() -> None:
    network = Network(*THREE, enrolled("a5"), mapped("a5", "10.66.5.0/24", plain=True))
    assert len(replies(network.ask("a5", "10.66.2.1/32"))) == 1
    actions = network.change(mapped("a2", "10.66.2.1/32", version=2))
    (smr,) = [decode(s.datagram) for s in sent(actions) if s.destination[0] == control("a5")]
    assert isinstance(smr, MapRequest)
    assert smr.smr
    assert smr.source_eid is not None
    assert str(smr.source_eid.prefix) == "10.66.2.1/32"
    assert str(smr.records[0].eid.prefix) == "10.66.5.0/24"


def test_a_plain_client_is_told_of_the_change_of_a_prefix_by_an_address_in_it() -> None:
    network = Network(*THREE, enrolled("a5"), mapped("a5", "10.66.5.0/24", plain=True))
    network.change(mapped("a2", "10.66.32.0/20"))
    network.ask("a5", "10.66.40.1/32")
    actions = network.change(mapped("a2", "10.66.32.0/20", version=2))
    solicited = [decode(s.datagram) for s in sent(actions) if s.destination[0] == control("a5")]
    sources = [one.source_eid for one in solicited if isinstance(one, MapRequest)]
    assert Eid(ipaddress.ip_network("10.66.32.0/32")) in sources


def test_changes_of_the_server_set_are_pushed_to_who_asked_for_it() -> None:
    network = Network(*THREE, server("ms1"))
    network.ask("a1", "fd77:676d:6170::/64")
    (push,) = told(network.change(server("ms2")), "a1")
    assert prefixes(push) == {"fd77:676d:6170::1001/128", "fd77:676d:6170::1002/128"}


# ------------------------------------------------------------------------------- revocations


def revoked(network: Network, name: str) -> list[Action]:
    number = int(name[1:])
    return network.change(
        enrolled(name, revoked=True),
        unmapped(f"10.66.{number}.1/32"),
        revocation(number, name, f"10.66.{number}.0/24"),
    )


def test_a_revocation_is_pushed_to_all_agents_and_repeated_long() -> None:
    network = settled()
    actions = revoked(network, "a2")
    for name in ("a1", "a3"):
        (push,) = told(actions, name)
        assert prefixes(push) == {"10.66.2.1/32", "10.66.2.0/24"}
        assert {record.ttl_min for record in push.records} == {0}
        keys = {(at.key, at.key_revoked) for r in push.records for at in r.locators}
        assert keys == {(key("a2"), True), (key("a2"), False)}, "revoked, and withdrawn"
    assert told(actions, "a2") == []
    assert len(told(network.tick(300), "a3")) == REVOCATION_ATTEMPTS - 1
    assert network.ask("a2", "10.66.1.1/32") == []


def test_pushes_to_a_revoked_agent_end() -> None:
    network = Network(*THREE)
    network.ask("a1", "10.66.2.1/32")
    revoked(network, "a2")
    assert told(network.tick(60), "a2") == []


def test_a_revocation_reaches_thousands_without_one_long_turn() -> None:
    rows = [row for n in range(10, 2010) for row in (enrolled(f"a{n}"), _host(n))]
    network = Network(*THREE, *rows)
    actions = revoked(network, "a2")
    assert 0 < len(notifies(actions)) <= 256
    everybody = {address for address, _ in notifies(actions)}
    everybody |= {address for address, _ in notifies(network.tick(2.0))}
    assert len(everybody) == 2002


def _host(n: int) -> Change:
    change = mapped("a9", f"10.66.{n >> 8 | 128}.{n & 255}/32")
    assert isinstance(change.row, MappingRow)
    return change._replace(row=change.row._replace(peer=f"a{n}"))


def _renamed(change: Change, name: str) -> Change:
    assert isinstance(change.row, MappingRow)
    return change._replace(row=change.row._replace(peer=name))


def test_a_renamed_peer_is_no_news_and_its_changes_still_reach_those_who_hold_it() -> None:
    network = settled()
    rename = (
        Change(Table.PEERS, "a2", None),
        enrolled("a2")._replace(key="b2"),
        _renamed(mapped("a2", "10.66.2.1/32"), "b2"),
    )
    assert told(network.change(*rename), "a1") == []
    assert told(network.tick(10), "a1") == []
    newer = _renamed(mapped("a2", "10.66.2.1/32", version=2), "b2")
    (push,) = told(network.change(newer), "a1")
    assert (prefixes(push), push.records[0].version) == ({"10.66.2.1/32"}, 2)
    newer = mapped("a1", "10.66.1.1/32", version=2)
    assert len(told(network.change(newer), "a2")) == 1, "as an agent it goes on too"


def test_the_overlay_of_an_instance_decides_what_goes_natively() -> None:
    other = Change(Table.INSTANCES, 7, InstanceRow((prefix("172.16.0.0/12"),)))
    network = Network(*THREE, enrolled("a7", "172.16.0.0/12", instance=7), other)
    (inside,) = replies(network.ask("a7", "172.16.9.9/32", instance=7))
    (outside,) = replies(network.ask("a7", "10.66.2.1/32", instance=7))
    actions = [reply.records[0].action for reply in (inside, outside)]
    assert actions == [MapReplyAction.SEND_MAP_REQUEST, MapReplyAction.NATIVELY_FORWARD]


# ------------------------------------------------------------------------------------ copies


def test_a_new_copy_tells_those_who_hold_what_is_different_in_it() -> None:
    network = settled()
    network.service.detached()
    network.service.attached(network.now)
    without = [row for row in THREE if row != THREE[5]]
    actions = network.copy(50, *without, mapped("a2", "10.66.2.1/32", version=7))
    (push,) = told(actions, "a1")
    assert push.records[0].version == 7
    actions = network.copy(60, *without, revocation(1, "a2", "10.66.2.0/24"))
    (push,) = told(actions, "a1")
    assert prefixes(push) == {"10.66.2.1/32", "10.66.2.0/24"}
    assert {record.ttl_min for record in push.records} == {0}
