"""What operators change: peers, batches, limits, instances; and a restore, piece by piece."""

import ipaddress
from dataclasses import replace

import msgpack
import pytest

from support.fsm import ORIGIN, Driver, address_of, enrol, key, prefix, register
from wgmap_cluster.fsm import audit
from wgmap_cluster.fsm.commands import (
    Advance,
    Enrol,
    EnrolMany,
    NewPeer,
    RestoreBegin,
    RestoreEnd,
    RestoreRows,
    Revoke,
    SetInstance,
    SetPeer,
    decode,
)
from wgmap_cluster.fsm.instances import tag
from wgmap_cluster.fsm.packing import pack_rows
from wgmap_cluster.fsm.results import Reason, Refused, Registered
from wgmap_cluster.fsm.rows import Change, InstanceRow, Meta, PeerRow, Table

DIGEST = b"d" * 32
CONTROL = prefix("fd77:676d:6170::/64")


@pytest.fixture
def driver() -> Driver:
    """Return a founded cluster with peer a1 enrolled."""
    made = Driver()
    made.done(enrol("a1", 1, "10.66.1.0/24", "fd66::1/128"))
    return made


def new(name: str, number: int, *prefixes: str, instance: int = 0) -> NewPeer:
    return NewPeer(name, instance, tuple(map(prefix, prefixes)), key(number))


# Changing a peer.


def test_a_change_takes_effect_on_the_revision_that_was_looked_at(driver: Driver) -> None:
    change = SetPeer("a1", ORIGIN, prefixes=(prefix("fd66::1/128"),), if_revision=1)
    done = driver.done(change)
    assert done.peer is not None
    assert done.peer.revision == 2
    assert driver.refused(change) is Reason.CHANGED
    assert not driver.done(replace(change, if_revision=2)).changed
    assert driver.machine.state.peers["a1"].revision == 2, "what changes nothing is no revision"


def test_enrolling_again_asks_for_the_values_not_the_revision(driver: Driver) -> None:
    for prefixes in (("fd66::1/128",), ("10.66.1.0/24", "fd66::1/128")):
        driver.done(SetPeer("a1", ORIGIN, prefixes=tuple(map(prefix, prefixes))))
    assert not driver.done(enrol("a1", 1, "10.66.1.0/24", "fd66::1/128")).changed


def test_a_renamed_peer_keeps_all_it_has(driver: Driver) -> None:
    driver.registered(register(1, 7, "10.66.1.7/32", "fd66::1/128"))
    before = driver.machine.state.held_by("a1")
    driver.done(SetPeer("a1", ORIGIN, new_name="b1"))
    state = driver.machine.state
    assert list(state.peers) == ["b1"]
    after = state.held_by("b1")
    assert [(k, row._replace(peer="a1")) for k, row in after] == list(before)
    assert state.held_by("a1") == ()
    assert state.peer_by_key(key(1)) == "b1"
    assert driver.registered(register(1, 7, "10.66.1.7/32", "fd66::1/128")).peer == "b1"
    driver.done(enrol("a1", 2, "10.66.2.0/24"))
    assert driver.refused(SetPeer("a1", ORIGIN, new_name="b1")) is Reason.NAME_TAKEN


def test_renaming_and_losing_a_prefix_at_once(driver: Driver) -> None:
    driver.registered(register(1, 7, "10.66.1.7/32", "fd66::1/128"))
    driver.done(SetPeer("a1", ORIGIN, new_name="b1", prefixes=(prefix("fd66::1/128"),)))
    assert [k[1] for k in driver.machine.state.mappings] == [prefix("fd66::1/128")]
    assert [k[1] for k, _ in driver.machine.state.held_by("b1")] == [prefix("fd66::1/128")]


def test_the_audit_says_what_was_changed_and_no_secret(driver: Driver) -> None:
    driver.done(SetPeer("a1", ORIGIN, new_name="b1", limit=3, lisp_key=b"hush!"))
    row = list(driver.machine.state.audit.values())[-1]
    assert (row.action, row.subject) == ("set", "a1")
    assert row.detail == "renamed to b1; LISP authentication; limit 3"


def test_commands_of_older_logs_are_read_with_defaults() -> None:
    old = msgpack.packb([1, 3, "a1", list(ORIGIN), None, None, None, None, None])
    assert decode(old) == SetPeer("a1", ORIGIN)


# Many at once.


def test_a_batch_is_enrolled_whole_and_again_changes_nothing(driver: Driver) -> None:
    batch = EnrolMany(
        (new("a1", 1, "10.66.1.0/24", "fd66::1/128"), new("b", 2, "10.66.2.0/24")), ORIGIN
    )
    assert driver.done(batch).count == 1
    again = driver.done(batch)
    assert (again.changed, again.count) == (False, 0)
    rows = driver.machine.state.audit.values()
    assert [row.subject for row in rows if row.action == "enrol"] == ["a1", "b"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (new("b", 9, "10.66.9.0/24"), Reason.NAME_TAKEN),
        (new("c", 2, "10.66.9.0/24"), Reason.KEY_TAKEN),
        (new("c", 9, "10.66.2.0/24"), Reason.PREFIX_TAKEN),
        (new("c", 9, "10.66.1.0/24"), Reason.PREFIX_TAKEN),  # of a peer that was there
        (new("c", 9, "224.0.0.0/24"), Reason.PREFIX_RESERVED),
        (new("a1", 1, "10.66.9.0/24"), Reason.NAME_TAKEN),
    ],
)
def test_one_bad_peer_keeps_the_batch_out_and_is_named(
    driver: Driver, bad: NewPeer, reason: Reason
) -> None:
    before = list(driver.machine.state.rows())
    good = new("b", 2, "10.66.2.0/24")
    refused = driver.apply(EnrolMany((good, bad, new("d", 8, "10.66.8.0/24")), ORIGIN)).result
    assert isinstance(refused, Refused)
    assert (refused.reason, refused.position) == (reason, 1)
    assert list(driver.machine.state.rows()) == before


def test_a_batch_takes_the_mappings_inside_its_prefixes_once(driver: Driver) -> None:
    driver.registered(register(1, 1, "10.66.1.64/32", "10.66.1.9/32"))
    batch = (new("b", 2, "10.66.1.64/26"), new("c", 3, "10.66.1.64/27"))
    applied = driver.apply(EnrolMany(batch, ORIGIN))
    gone = [each for each in applied.changes if each.table is Table.MAPPINGS]
    assert [each.row for each in gone] == [None]
    assert [k[1] for k in driver.machine.state.mappings] == [prefix("10.66.1.9/32")]


def test_the_audit_keeps_the_newest_rows(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MAX_AUDIT_ROWS", 5)
    peers = tuple(new(f"p{n}", 100 + n, f"10.66.{n}.0/24") for n in range(10, 14))
    driver.done(EnrolMany(peers, ORIGIN))
    driver.done(Revoke("p10", ORIGIN))
    rows = driver.machine.state.audit
    assert (list(rows), driver.machine.state.meta[Meta.AUDITED]) == ([3, 4, 5, 6, 7], 7)


# Limits.


def test_a_peers_limit_holds_for_prefixes_and_mappings(driver: Driver) -> None:
    driver.done(SetPeer("a1", ORIGIN, limit=2))
    driver.registered(register(1, 1, "10.66.1.1/32", "10.66.1.2/32"))
    three = register(1, 2, "10.66.1.1/32", "10.66.1.2/32", "10.66.1.3/32")
    assert driver.refused(three) is Reason.LIMIT
    more = tuple(map(prefix, ("10.66.1.0/24", "fd66::1/128", "fd66::2/128")))
    assert driver.refused(SetPeer("a1", ORIGIN, prefixes=more)) is Reason.LIMIT
    driver.done(SetPeer("a1", ORIGIN, limit=0, prefixes=more))
    driver.registered(three)
    driver.done(SetPeer("a1", ORIGIN, limit=3))
    moved = register(1, 3, "10.66.1.1/32", "10.66.1.2/32", at="192.0.2.77")
    assert isinstance(driver.apply(moved).result, Registered), "fewer, or the same, always goes"


def test_an_instance_is_limited_and_others_are_not(driver: Driver) -> None:
    driver.done(SetInstance(0, ORIGIN, max_mappings=1))
    driver.done(enrol("b", 2, "10.66.1.0/24", instance=7))
    driver.registered(register(1, 1, "10.66.1.1/32"))
    both = register(1, 2, "10.66.1.1/32", "10.66.1.2/32")
    assert driver.refused(both) is Reason.LIMIT
    driver.registered(replace(register(2, 1, "10.66.1.1/32", "10.66.1.2/32"), instance=7))
    assert (driver.machine.state.size(0), driver.machine.state.size(7)) == (1, 2)
    driver.registered(register(1, 3, "10.66.1.9/32"))
    driver.done(SetInstance(0, ORIGIN, max_mappings=0))
    assert driver.machine.state.instances == {}
    driver.registered(replace(both, nonce=4))


# Instances.


def test_overlapping_address_space_is_kept_apart(driver: Driver) -> None:
    driver.done(enrol("b", 2, "10.66.1.0/24", "fd66::1/128", instance=7))
    driver.registered(register(1, 1, "10.66.1.5/32"))
    driver.registered(replace(register(2, 1, "10.66.1.5/32", data=42), instance=7))
    assert driver.refused(replace(register(2, 2, "10.66.1.5/32"), instance=0)) is Reason.NOT_OWNER
    state = driver.machine.state
    address = ipaddress.ip_address("10.66.1.5")
    found = [state.resolve(instance, address) for instance in (0, 7, 8)]
    assert [each.row.peer if each else None for each in found] == ["a1", "b", None]
    driver.done(Revoke("b", ORIGIN))
    assert state.resolve(7, address) is None
    assert state.resolve(0, address) is not None
    assert state.revocations[1].instance == 7


def test_each_instance_is_counted_on_its_own(driver: Driver) -> None:
    driver.done(enrol("b", 2, "10.66.1.0/24", instance=7))
    driver.done(enrol("c", 3, "10.66.2.0/24", instance=7))
    driver.registered(replace(register(2, 1, "10.66.1.5/32"), instance=7))
    state = driver.machine.state
    before = {0: (1, 0), 7: (2, 1)}
    assert state.instance_counts(9) == before
    assert list(state.instance_counts(1)) == [7], "those with the most peers"
    driver.done(Revoke("b", ORIGIN))
    assert state.instance_counts(9) == {0: (1, 0), 7: (1, 0)}
    driver.done(Revoke("c", ORIGIN))
    assert state.instance_counts(9) == {0: (1, 0)}


def test_an_instance_has_its_overlay_or_the_clusters(driver: Driver) -> None:
    driver.done(SetInstance(7, ORIGIN, overlay=(prefix("172.16.0.0/12"),)))
    state = driver.machine.state
    assert [str(each) for each in state.overlay_of(7)] == ["172.16.0.0/12"]
    assert state.overlay_of(8) == state.overlay_of(0) == state.overlay
    assert not driver.done(SetInstance(7, ORIGIN)).changed
    assert driver.refused(SetInstance(7, ORIGIN, (CONTROL,))) is Reason.PREFIX_RESERVED
    here = tag(state.instances[7])
    assert driver.refused(SetInstance(7, ORIGIN, (), if_tag=here + 1)) is Reason.CHANGED
    driver.done(SetInstance(7, ORIGIN, (), if_tag=here))
    assert driver.refused(SetInstance(7, ORIGIN, max_mappings=1, if_tag=here)) is Reason.CHANGED
    assert not driver.done(SetInstance(7, ORIGIN, (), if_tag=tag(InstanceRow()))).changed
    assert state.overlay_of(7) == state.overlay


# Revocations since a number.


def test_revocations_since_a_number_oldest_first_and_bounded(driver: Driver) -> None:
    for number in range(2, 6):
        driver.done(enrol(f"b{number}", number, f"10.66.{number}.0/24"))
        driver.done(Revoke(f"b{number}", ORIGIN))
    state = driver.machine.state
    assert [n for n, _ in state.revoked_since(0, 10)] == [1, 2, 3, 4]
    assert [(n, row.peer) for n, row in state.revoked_since(1, 2)] == [(2, "b3"), (3, "b4")]
    assert state.revoked_since(4, 10) == state.revoked_since(99, 10) == []


# Restore.


def piece(*changes: Change) -> bytes:
    (data,) = pack_rows(changes, 24_000)
    return data


def a_peer(name: str, number: int, *prefixes: str) -> Change:
    row = PeerRow(key(number), address_of(key(number)), 0, tuple(map(prefix, prefixes)))
    return Change(Table.PEERS, name, row)


def restoring() -> Driver:
    driver = Driver()
    driver.done(RestoreBegin(DIGEST, CONTROL, ORIGIN))
    return driver


def test_pieces_take_effect_once_and_in_order() -> None:
    driver = restoring()
    first = RestoreRows(DIGEST, 1, piece(Change(Table.META, Meta.AUDITED, 40)))
    assert driver.refused(replace(first, number=2)) is Reason.INVALID
    assert driver.done(first).count == 1
    assert not driver.done(replace(first, rows=b"whatever")).changed
    assert driver.done(RestoreBegin(DIGEST, CONTROL, ORIGIN)).count == 1
    driver.done(RestoreRows(DIGEST, 2, piece(a_peer("a1", 1, "10.66.1.0/24"))))
    assert driver.refused(RestoreEnd(DIGEST, 3, "", ORIGIN)) is Reason.INVALID
    end = RestoreEnd(DIGEST, 2, "from there", ORIGIN)
    assert driver.done(end).changed
    assert not driver.done(end).changed
    row = driver.machine.state.audit[41]
    assert (row.action, row.detail) == ("restore", "from there")
    driver.registered(register(1, 1, "10.66.1.1/32"))
    assert driver.refused(RestoreBegin(DIGEST, CONTROL, ORIGIN)) is Reason.NOT_EMPTY


def test_while_a_backup_is_restored_nobody_registers_and_little_is_changed() -> None:
    driver = restoring()
    driver.done(RestoreRows(DIGEST, 1, piece(a_peer("a1", 1, "10.66.1.0/24"))))
    for command in (
        register(1, 1, "10.66.1.1/32"),
        enrol("b", 2, "10.66.2.0/24"),
        Revoke("a1", ORIGIN),
        SetInstance(3, ORIGIN, ()),
    ):
        assert driver.refused(command) is Reason.RESTORING
    driver.done(Advance(9.0))
    other = RestoreBegin(b"e" * 32, CONTROL, ORIGIN)
    assert driver.refused(other) is Reason.RESTORING
    assert driver.refused(RestoreRows(b"e" * 32, 2, b"")) is Reason.INVALID


def test_only_an_empty_cluster_with_the_same_control_prefix_takes_a_backup(
    driver: Driver,
) -> None:
    assert driver.refused(RestoreBegin(DIGEST, CONTROL, ORIGIN)) is Reason.NOT_EMPTY
    other = RestoreBegin(DIGEST, prefix("fd00::/64"), ORIGIN)
    assert Driver().refused(other) is Reason.INVALID
    assert Driver().refused(RestoreRows(DIGEST, 1, b"")) is Reason.INVALID


@pytest.mark.parametrize(
    "bad",
    [
        Change(Table.META, Meta.CLUSTER_ID, b"x" * 16),
        Change(Table.META, Meta.CLOCK, 1.0),
        Change(Table.META, Meta.OVERLAY, "10.0.0.1/8"),
        Change(Table.SERVERS, "ms9", None),
        Change(Table.VERSIONS, (0, prefix("10.0.0.0/8")), 4096),
        Change(Table.VERSIONS, (0, prefix("10.0.0.0/8")), None),
        Change(Table.PEERS, "a/b", PeerRow(key(1), address_of(key(1)), 0, ())),
        Change(Table.PEERS, "a", PeerRow(b"short", address_of(key(1)), 0, ())),
        Change(Table.INSTANCES, 1, InstanceRow((b"no prefix",))),
        a_peer("a1", 1, "fd77:6d65::/64"),
    ],
    ids=str,
)
def test_rows_that_do_not_belong_are_refused_whole(bad: Change) -> None:
    driver = restoring()
    data = piece(Change(Table.META, Meta.AUDITED, 40), bad)
    refused = driver.apply(RestoreRows(DIGEST, 1, data))
    assert isinstance(refused.result, Refused)
    assert refused.changes == ()


def test_peers_that_contradict_each_other_in_one_piece_are_refused() -> None:
    data = piece(a_peer("a1", 1, "10.66.1.0/24"), a_peer("a2", 2, "10.66.1.0/24"))
    assert restoring().refused(RestoreRows(DIGEST, 1, data)) is Reason.PREFIX_TAKEN


def test_prefixes_that_nothing_is_known_of_start_above_the_floor() -> None:
    driver = restoring()
    rows = (
        Change(Table.META, Meta.VERSION_FLOOR, 1024),
        Change(Table.VERSIONS, (0, prefix("10.66.1.0/24")), 3500),
        a_peer("a1", 1, "10.66.1.0/24", "fd66::1/128"),
    )
    driver.done(RestoreRows(DIGEST, 1, piece(*rows)))
    driver.done(RestoreEnd(DIGEST, 1, "", ORIGIN))
    done = driver.registered(register(1, 1, "10.66.1.1/32", "fd66::1/128"))
    assert [row.version for _, row in done.mappings] == [3501, 1025]


def test_a_plain_client_is_limited_too(driver: Driver) -> None:
    address = ipaddress.ip_address("10.0.0.1").packed
    client = Enrol(
        "oor", 0, (prefix("10.66.5.0/24"),), ORIGIN, control_address=address, lisp_key=b"s", limit=1
    )
    driver.done(client)
    one = replace(register(1, 1, "10.66.5.1/32"), control_address=address, key=b"")
    driver.registered(one)
    two = replace(register(1, 2, "10.66.5.2/32"), control_address=address, key=b"")
    assert driver.refused(two) is Reason.LIMIT
