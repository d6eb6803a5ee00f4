"""The state machine against a model, and its determinism, over random histories."""

import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from support.fsm import (
    ORIGIN,
    Driver,
    address_of,
    bootstrap,
    enrol,
    key,
    locator,
    prefix,
    register,
    server,
)
from wgmap_cluster.fsm import commands
from wgmap_cluster.fsm.commands import (
    VERSION,
    Advance,
    Command,
    CommandError,
    EnrolMany,
    Expire,
    RemoveServer,
    RestoreBegin,
    RestoreEnd,
    RestoreRows,
    Revoke,
    Seen,
    SetInstance,
    SetPeer,
    SetServer,
    decode,
    encode,
)
from wgmap_cluster.fsm.instances import tag
from wgmap_cluster.fsm.machine import PIECE_BYTES, Machine
from wgmap_cluster.fsm.packing import PackingError, pack_rows, unpack_rows
from wgmap_cluster.fsm.results import Done, Refused, Registered, Taken
from wgmap_cluster.fsm.rows import Change, InstanceRow, MappingRow, Meta, PeerRow, Table
from wgmap_cluster.fsm.versions import is_newer, next_version
from wgmap_cluster.raft.interface import MAX_COMMAND_BYTES, CannotApplyError

PEERS = st.integers(1, 4)
PREFIXES = ("10.66.0.0/16", "10.66.1.0/24", "10.66.1.7/32", "10.66.2.0/24", "fd66::1/128")
SOME_PREFIXES = st.lists(st.sampled_from(PREFIXES), max_size=3, unique=True)
ADDRESSES = st.sampled_from(("192.0.2.11", "192.0.2.12", "2001:db8:6::11"))
TTLS = st.sampled_from((0, 1, 2))


def some_rows(number: int, prefixes: list[str], version: int) -> Iterator[Change]:
    """Yield rows of a peer as a backup has them."""
    wide = tuple(sorted(map(prefix, prefixes)))
    yield Change(Table.META, Meta.VERSION_FLOOR.value, version)
    for each in wide:
        mapping = MappingRow(f"p{number}", key(9), (locator(),), 1, version)
        yield Change(Table.MAPPINGS, (0, each), mapping)
    row = PeerRow(key(number), address_of(key(number)), 0, wide)
    yield Change(Table.PEERS, f"p{number}", row)


COMMANDS: st.SearchStrategy[Command] = st.one_of(
    st.just(bootstrap()),
    st.builds(lambda n, p: enrol(f"p{n}", n, *p), PEERS, SOME_PREFIXES),
    st.builds(
        lambda n, p: SetPeer(f"p{n}", ORIGIN, prefixes=tuple(map(prefix, p))), PEERS, SOME_PREFIXES
    ),
    st.builds(lambda n, k: SetPeer(f"p{n}", ORIGIN, control_key=key(k)), PEERS, PEERS),
    st.builds(
        lambda n, revision: Revoke(f"p{n}", ORIGIN, revision),
        *(PEERS, st.none() | st.integers(1, 3)),
    ),
    st.builds(
        lambda n, new, limit, revision: SetPeer(
            f"p{n}", ORIGIN, new_name=f"p{new}", limit=limit, if_revision=revision
        ),
        *(PEERS, PEERS, st.integers(0, 2), st.none() | st.integers(1, 3)),
    ),
    st.builds(
        lambda ns, p: EnrolMany(tuple(enrol(f"p{n}", n, *p).peer() for n in ns), ORIGIN),
        *(st.lists(PEERS, max_size=3), SOME_PREFIXES),
    ),
    st.builds(
        lambda n, p, most, seen: SetInstance(n, ORIGIN, tuple(map(prefix, p)), most, seen),
        *(st.integers(0, 1), SOME_PREFIXES, st.integers(0, 2)),
        st.none() | st.just(tag(InstanceRow())),
    ),
    st.builds(lambda: RestoreBegin(b"d" * 32, prefix("fd77:676d:6170::/64"), ORIGIN)),
    st.builds(
        lambda number, n, p, version: RestoreRows(
            b"d" * 32, number, b"".join(pack_rows(some_rows(n, p, version), 1 << 16))
        ),
        *(st.integers(1, 3), PEERS, SOME_PREFIXES, st.integers(1, 4095)),
    ),
    st.builds(lambda n: RestoreEnd(b"d" * 32, n, "", ORIGIN), st.integers(0, 2)),
    st.builds(
        lambda n, nonce, p, t, a: register(n, nonce, *p, ttl=t, at=a),
        *(PEERS, st.integers(0, 5), SOME_PREFIXES, TTLS, ADDRESSES),
    ),
    st.builds(lambda names: Seen(tuple(names)), st.lists(st.sampled_from(("p1", "p2")))),
    st.builds(lambda c: Expire(c, ("p1", "p2", "p3", "p4")), st.floats(0, 1000)),
    st.builds(Advance, st.floats(0, 1000)),
    st.builds(lambda n: SetServer(f"ms{n}", server(n), ORIGIN), PEERS),
    st.builds(lambda n: RemoveServer(f"ms{n}", ORIGIN), PEERS),
)
HISTORIES = st.lists(COMMANDS.map(encode) | st.binary(max_size=20), max_size=30)


def snapshot(machine: Machine) -> list[bytes]:
    return list(machine.snapshot())


@settings(max_examples=80, deadline=None)
@given(HISTORIES, st.integers(0, 30))
def test_same_commands_same_rows_and_snapshot_and_a_restore_anywhere(
    history: list[bytes], cut: int
) -> None:
    whole, other = Machine(), Machine()
    for index, command in enumerate(history, 1):
        result = whole.apply(index, command)
        assert other.apply(index, command) == result
        if index == cut:
            restored = Machine()
            restored.restore(iter(snapshot(other)))
            other = restored
    assert list(other.state.rows()) == list(whole.state.rows())
    assert snapshot(other) == snapshot(whole)
    assert other.index == whole.index


@settings(max_examples=60, deadline=None)
@given(HISTORIES)
def test_a_copy_kept_from_changes_equals_the_tables(history: list[bytes]) -> None:
    machine = Machine()
    copy: dict[Table, dict[Any, Any]] = {table: {} for table in Table}

    def keep(_: int, applied: Any) -> None:
        for change in applied.changes:
            if change.row is None:
                copy[change.table].pop(change.key, None)
            else:
                copy[change.table][change.key] = change.row

    machine.listen(keep)
    for index, command in enumerate(history, 1):
        machine.apply(index, command)
    assert copy == machine.state.tables


@given(COMMANDS)
def test_commands_survive_their_bytes(command: Command) -> None:
    assert decode(encode(command)) == command


@settings(max_examples=200, deadline=None)
@given(COMMANDS.map(encode), st.data())
def test_damaged_commands_change_nothing_or_are_commands(data: bytes, draw: st.DataObject) -> None:
    position = draw.draw(st.integers(0, len(data) - 1))
    value = draw.draw(st.integers(0, 255))
    driver = Driver()
    before = list(driver.machine.state.rows())
    damaged = data[:position] + bytes([value]) + data[position + 1 :]
    try:
        applied = driver.apply_bytes(damaged)
    except CannotApplyError:  # it may be one of a later version
        assert msgpack.unpackb(damaged)[0] > VERSION
        refused = True
    else:
        refused = isinstance(applied.result, Refused)
    if refused:
        assert list(driver.machine.state.rows()) == before


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "not msgpack"),
        (b"\x93\x01\x05", "not msgpack"),
        (msgpack.packb([0, 5]), "not a command"),
        (msgpack.packb({"a": 1}), "not msgpack"),
        (msgpack.packb([1, 99]), "unknown operation"),
        (msgpack.packb([1, True, 1.0]), "unknown operation"),
        (msgpack.packb([1, 8]), "0 fields instead of 1"),
        (msgpack.packb([1, 8, float("nan")]), "Advance.clock"),
        (msgpack.packb([1, 8, -1.0]), "Advance.clock"),
        (msgpack.packb([1, 8, 10**9]) + b"\x00", "not msgpack"),
        (msgpack.packb([1, 6, ["../etc"]]), "a name"),
        (msgpack.packb([1, 6, ["x"] * 3000]), "up to 2048"),
        (msgpack.packb([1, 5, b"\xe0\0\0\1", 1, 0, b"", []]), "unicast"),
        (msgpack.packb([1, 5, b"\x0a\0\0\1", 1, 0, b"short", []]), "32-32 bytes"),
        (msgpack.packb([1, 5, b"\x0a\0\0\1", 2**63, 1 << 32, b"", []]), "Register.instance"),
        (
            msgpack.packb([1, 5, b"\x0a\0\0\1", 1, 0, b"", [[b"\x21" + b"\0" * 4, [], 1]]]),
            "Register.offers",
        ),
        (b"\x00" * (MAX_COMMAND_BYTES + 1), "too many"),
    ],
)
def test_bad_commands_are_named(data: bytes, what: str) -> None:
    with pytest.raises(CommandError, match=what):
        decode(data)


def test_a_command_too_large_is_not_written() -> None:
    names = tuple(f"{n:063d}" for n in range(1000))
    with pytest.raises(CommandError, match="too many"):
        encode(Seen(names))


def test_the_largest_register_fits_a_command() -> None:
    rows = tuple(locator("2001:db8::1")._replace(private_address=b"\x0a" * 16) for _ in range(8))
    command = replace(register(1, 2**64 - 1), instance=2**32 - 1)
    addresses = [f"2001:db8::{n:x}/128" for n in range(1, 65)]
    offers = tuple(commands.Offer(prefix(each), rows, 2**31) for each in addresses)
    assert len(encode(replace(command, offers=offers))) <= MAX_COMMAND_BYTES


def test_snapshot_pieces_are_bounded_and_a_picture_of_the_moment() -> None:
    driver = Driver()
    for number in range(2000):
        client = commands.Enrol(
            f"p{number}", 0, (), ORIGIN, control_address=struct.pack(">I", 0x0A000000 + number)
        )
        driver.done(client)
    pieces = driver.machine.snapshot()
    before = list(driver.machine.state.rows())
    driver.done(Advance(5.0))
    drawn = list(pieces)
    assert len(drawn) >= 5
    assert max(map(len, drawn)) <= PIECE_BYTES
    restored = Machine()
    restored.restore(iter(drawn))
    assert list(restored.state.rows()) == before


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b"\xc1"],
        [msgpack.packb([99, 0])],
        [msgpack.packb([1, 0]), b"\x93\x00"],
        [msgpack.packb([1, 0]), msgpack.packb([77, "x", 1])],
        [msgpack.packb([1, 0]), msgpack.packb([2, "x", [1, 2]])],
        [msgpack.packb([1, 0]), msgpack.packb([4, "x", None])],
        [msgpack.packb([1, 0]), msgpack.packb([6, "x", None])],
        [msgpack.packb([1, 0]), msgpack.packb([0, "x", [1]])],
    ],
)
def test_a_bad_snapshot_is_refused_and_changes_nothing(pieces: list[bytes]) -> None:
    driver = Driver()
    before = list(driver.machine.state.rows())
    with pytest.raises(PackingError):
        driver.machine.restore(iter(pieces))
    assert list(driver.machine.state.rows()) == before


def test_rows_larger_than_a_piece_travel_alone() -> None:
    rows = [Change(Table.META, name, "x" * 100) for name in ("a", "b", "c")]
    pieces = list(pack_rows(rows, 10))
    assert len(pieces) == 3
    assert [change for piece in pieces for change in unpack_rows(piece)] == rows


@given(st.integers(1, 4095), st.integers(1, 4095))
def test_version_order_is_total_and_circular(one: int, other: int) -> None:
    assert is_newer(one, other) + is_newer(other, one) == (one != other)
    assert is_newer(next_version(one), one)
    assert 1 <= next_version(one) <= 4095
    assert is_newer(one, 0)
    assert not is_newer(0, one)


@dataclass
class ModelPeer:
    number: int
    prefixes: frozenset[str]
    nonce: int | None = None
    content: Any = None
    revoked: bool = False


def inside(one: str, wide: str) -> bool:
    first, second = ipaddress.ip_network(one), ipaddress.ip_network(wide)
    return first.version == second.version and first.subnet_of(second)  # type: ignore[arg-type]


class Registry(RuleBasedStateMachine):
    """Enrolment, registration and revocation beside a model of the rules of WIRE.md."""

    def __init__(self) -> None:
        super().__init__()
        self.driver = Driver()
        self.peers: dict[str, ModelPeer] = {}
        self.mappings: dict[str, tuple[str, str]] = {}  # prefix -> peer, locator
        self.served: dict[str, int] = {}  # the last version ever served of a prefix

    def owner(self, each: str) -> str | None:
        found = [
            (ipaddress.ip_network(wide).prefixlen, name)
            for name, peer in self.peers.items()
            for wide in peer.prefixes
            if not peer.revoked and inside(each, wide)
        ]
        return max(found)[1] if found else None

    def forget_lost(self) -> None:
        self.mappings = {p: m for p, m in self.mappings.items() if self.owner(p) == m[0]}

    @rule(number=PEERS, prefixes=SOME_PREFIXES)
    def enrol(self, number: int, prefixes: list[str]) -> None:
        name = f"p{number}"
        result = self.driver.apply(enrol(name, number, *prefixes)).result
        taken = {p for peer in self.peers.values() if not peer.revoked for p in peer.prefixes}
        known = self.peers.get(name)
        if known is not None:
            same = not known.revoked and known.prefixes == frozenset(prefixes)
            assert isinstance(result, Done) == same
        elif taken & set(prefixes):
            assert isinstance(result, Refused)
        else:
            assert isinstance(result, Done)
            self.peers[name] = ModelPeer(number, frozenset(prefixes))
            self.forget_lost()

    @rule(number=PEERS)
    def revoke(self, number: int) -> None:
        result = self.driver.apply(Revoke(f"p{number}", ORIGIN)).result
        peer = self.peers.get(f"p{number}")
        assert isinstance(result, Done) == (peer is not None)
        if peer is not None:
            peer.revoked = True
            self.mappings = {p: m for p, m in self.mappings.items() if m[0] != f"p{number}"}

    @rule(number=PEERS, nonce=st.integers(0, 6), prefixes=SOME_PREFIXES, at=ADDRESSES)
    def register(self, number: int, nonce: int, prefixes: list[str], at: str) -> None:
        name = f"p{number}"
        result = self.driver.apply(register(number, nonce, *prefixes, ttl=1, at=at)).result
        peer = self.peers.get(name)
        allowed = all(self.owner(p) == name for p in prefixes)
        if peer is None or peer.revoked or not allowed:
            assert isinstance(result, Refused)
            return
        assert isinstance(result, Registered)
        content = (frozenset(prefixes), at if prefixes else "")
        if peer.nonce is not None and (nonce, content) != (peer.nonce, peer.content):
            assert (result.taken is Taken.OLDER) == (nonce <= peer.nonce)
        if result.taken is not Taken.OLDER:
            peer.nonce, peer.content = nonce, content
            self.mappings = {p: m for p, m in self.mappings.items() if m[0] != name}
            self.mappings |= dict.fromkeys(prefixes, (name, at))
        assert result.nonce == peer.nonce

    @precondition(lambda self: self.mappings)
    @rule(late=st.booleans())
    def expire(self, late: bool) -> None:
        clock = self.driver.machine.state.clock + (180.0 if late else 10.0)
        registrations = dict(self.driver.machine.state.registrations)
        self.driver.done(Expire(clock, tuple(f"p{n}" for n in range(1, 5))))
        left = {name for name, row in registrations.items() if row.seen + 180.0 > clock}
        self.mappings = {p: m for p, m in self.mappings.items() if m[0] in left}

    @invariant()
    def tables_agree_with_the_model(self) -> None:
        actual = {}
        for (_, raw), row in self.driver.machine.state.mappings.items():
            address = ipaddress.ip_address(row.locators[0].address)
            actual[str(ipaddress.ip_network((raw[1:], raw[0])))] = (row.peer, str(address))
        assert actual == self.mappings

    @invariant()
    def versions_never_go_back(self) -> None:
        for (_, raw), row in self.driver.machine.state.mappings.items():
            name = str(ipaddress.ip_network((raw[1:], raw[0])))
            last = self.served.get(name, 0)
            assert row.version == last or is_newer(row.version, last)
            self.served[name] = row.version

    @invariant()
    def indexes_follow_from_the_tables(self) -> None:
        state = self.driver.machine.state
        held = [key for name in state.peers for key, _ in state.held_by(name)]
        assert sorted(held) == sorted(state.mappings)
        for name, row in state.peers.items():
            assert state.peer_by_address(row.control_address) == name


def _cases() -> Iterator[Any]:
    case = Registry.TestCase
    case.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
    yield case


(TestRegistry,) = _cases()
