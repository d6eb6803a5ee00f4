"""The bytes of a backup, its sealed keys, and what a restore makes of its rows."""

from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.fsm import ORIGIN, Driver, enrol, key, prefix, register
from wgmap.errors import ConfigError
from wgmap.wg.keys import PrivateKey, PublicKey
from wgmap_cluster.backup import form, sealing
from wgmap_cluster.backup.restoring import AHEAD, REVOCATION_GAP, Restoring, ahead
from wgmap_cluster.fsm.commands import Revoke
from wgmap_cluster.fsm.rows import Change, Meta, RegistrationRow, RevocationRow, Table
from wgmap_cluster.fsm.versions import is_newer, next_version

CLUSTER = b"c" * 16


def cluster() -> Driver:
    driver = Driver()
    driver.done(enrol("a1", 1, "10.66.1.0/24", "fd66::1/128"))
    driver.done(enrol("a2", 2, "10.66.2.0/24"))
    driver.done(enrol("a3", 3, "10.66.3.0/24"))
    driver.registered(register(1, 5, "10.66.1.1/32"))
    driver.registered(register(2, 6, "10.66.2.2/32", data=77))
    driver.done(Revoke("a3", ORIGIN))
    return driver


def pieces(driver: Driver, keys: form.Keys | None = None) -> list[bytes]:
    tables = form.copied(driver.machine.state.tables)
    return list(form.write(tables, driver.machine.index, "then", "ms1", keys))


def rows(backup: list[bytes]) -> Iterator[Change]:
    for frame in form.read(backup):
        if isinstance(frame, form.Rows):
            yield from frame.changes()


def test_what_is_written_is_read_however_it_is_cut() -> None:
    driver = cluster()
    sealed = form.Keys("ms1", b"sealed")
    written = pieces(driver, sealed)
    whole = list(form.read(written))
    head, keys, *_ = whole
    assert isinstance(head, form.Head)
    assert (head.cluster_id, head.index, head.wall) == (CLUSTER, driver.machine.index, "then")
    assert [name for name, _ in head.servers] == ["ms1", "ms2", "ms3"]
    assert keys == sealed
    data = b"".join(written)
    assert list(form.read(data[n : n + 1] for n in range(len(data)))) == whole
    tables = [change.table for change in rows(written)]
    assert tables == sorted(tables, key=form.TABLES.index)
    assert tables[-1] is Table.PEERS


def test_every_cut_and_every_flipped_byte_is_noticed() -> None:
    data = b"".join(pieces(cluster()))
    for length in range(len(data)):
        with pytest.raises(form.BackupError):
            list(form.read([data[:length]]))
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x01
        with pytest.raises(form.BackupError):
            list(form.read([bytes(damaged)]))
    with pytest.raises(form.BackupError, match="follows"):
        list(form.read([data + b"x"]))


def test_a_frame_that_is_left_out_is_noticed() -> None:
    written = pieces(cluster())
    with pytest.raises(form.BackupError, match="does not fit"):
        list(form.read([*written[:-2], written[-1]]))


def test_a_picture_of_the_moment() -> None:
    driver = cluster()
    tables = form.copied(driver.machine.state.tables)
    writing = form.write(tables, 1, "then", "ms1", None)
    before = b"".join(pieces(driver))
    begun = [next(writing)]
    driver.done(Revoke("a1", ORIGIN))
    names = [change.key for change in rows([*begun, *writing]) if change.table is Table.MAPPINGS]
    assert len(names) == 2
    assert before != b"".join(pieces(driver))


# Sealed keys.


def test_only_the_operators_key_opens_them() -> None:
    operator, other = PrivateKey.generate(), PrivateKey.generate()
    keys = {"control.key": b"k" * 32}
    sealed = sealing.seal(keys, operator.public, CLUSTER, "ms1")
    assert sealing.unseal(sealed, operator, CLUSTER, "ms1") == keys
    assert b"k" * 32 not in sealed
    assert sealing.seal(keys, operator.public, CLUSTER, "ms1") != sealed
    for attempt in (
        (sealed, other, CLUSTER, "ms1"),
        (sealed, operator, b"d" * 16, "ms1"),
        (sealed, operator, CLUSTER, "ms2"),
        (sealed[:-1], operator, CLUSTER, "ms1"),
        (sealed[:31], operator, CLUSTER, "ms1"),
        (bytes(32) + sealed[32:], operator, CLUSTER, "ms1"),
    ):
        with pytest.raises(ConfigError):
            sealing.unseal(*attempt)
    with pytest.raises(ConfigError, match="not a public key"):
        sealing.seal(keys, PublicKey(bytes(32)), CLUSTER, "ms1")


# Numbers that must not go back.


@settings(max_examples=500)
@example(version=1023, later=0, earlier=AHEAD - 2)
@example(version=3072, later=AHEAD - 1, earlier=0)
@given(st.integers(1, 4095), st.integers(0, AHEAD - 1), st.integers(0, AHEAD - 2))
def test_versions_are_newer_than_all_that_can_have_been_served(
    version: int, later: int, earlier: int
) -> None:
    """``later`` changes that the backup missed, agents that hold one ``earlier`` than it has."""
    restored = ahead(version)
    assert 1 <= restored <= 4095
    served = version
    for _ in range(later):
        served = next_version(served)
    held = (version - 1 - earlier) % 4095 + 1
    assert is_newer(restored, served)
    assert is_newer(restored, held)


def restored(driver: Driver, *revoked: str) -> tuple[Restoring, dict[tuple[Table, object], object]]:
    restoring = Restoring(123.0, revoked)
    changes = [*restoring.rows(rows(pieces(driver))), *restoring.finish()]
    return restoring, {(change.table, change.key): change.row for change in changes}


def test_rows_come_back_with_numbers_that_go_on() -> None:
    driver = cluster()
    _, table = restored(driver)
    mapping = driver.machine.state.mappings[0, prefix("10.66.1.1/32")]
    assert table[Table.MAPPINGS, (0, prefix("10.66.1.1/32"))] == mapping._replace(version=1025)
    registration = table[Table.REGISTRATIONS, "a1"]
    assert isinstance(registration, RegistrationRow)
    assert (registration.nonce, registration.seen) == (5, 123.0)
    assert table[Table.META, Meta.VERSION_FLOOR] == AHEAD
    assert table[Table.META, Meta.REVOCATIONS] == 1 + REVOCATION_GAP
    assert table[Table.REVOCATIONS, 1] == driver.machine.state.revocations[1]
    assert table[Table.AUDIT, 5] == driver.machine.state.audit[5]
    assert table[Table.META, Meta.AUDITED] == 5
    for meta in (Meta.CLUSTER_ID, Meta.CLOCK, Meta.CONTROL_PREFIX):
        assert (Table.META, meta) not in table


def test_who_was_revoked_since_does_not_come_back() -> None:
    driver = cluster()
    restoring, table = restored(driver, "a2", "a3", "a9")
    assert restoring.met == {"a2", "a3"}
    peer = table[Table.PEERS, "a2"]
    assert peer == driver.machine.state.peers["a2"]._replace(revoked=True, revision=2)
    assert (Table.MAPPINGS, (0, prefix("10.66.2.2/32"))) not in table
    assert (Table.REGISTRATIONS, "a2") not in table
    number = 2 + REVOCATION_GAP
    row = table[Table.REVOCATIONS, number]
    assert row == RevocationRow("a2", 0, (prefix("10.66.2.0/24"),), key(77))
    assert table[Table.META, Meta.REVOCATIONS] == number
    assert table[Table.PEERS, "a3"] == driver.machine.state.peers["a3"], "it was before"


def test_a_second_restore_goes_on_from_the_first() -> None:
    driver = cluster()
    driver.machine.state.put(Change(Table.META, Meta.VERSION_FLOOR.value, 1024))
    _, table = restored(driver)
    assert table[Table.META, Meta.VERSION_FLOOR] == 2 * AHEAD
