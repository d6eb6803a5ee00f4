"""The feed's bytes: what is written is read, what is not exactly that is refused."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgmap_cluster.feed import (
    MAX_PACKET,
    Answer,
    Attach,
    Barrier,
    BarrierDone,
    Changes,
    Contact,
    FeedError,
    FeedMessage,
    Forward,
    Known,
    Lease,
    ResponderNote,
    Rows,
    TableBegin,
    TableEnd,
    WhoKnows,
    decode,
    encode,
)
from wgmap_cluster.fsm.rows import (
    AuditRow,
    Change,
    LocatorRow,
    MappingRow,
    PeerRow,
    RevocationRow,
    ServerRow,
    Table,
)

PREFIX = bytes((32, 10, 66, 1, 1))
MAPPING = MappingRow(
    "a1", b"k" * 32, (LocatorRow(b"\xc0\x00\x02\x0b", 51820, 1, 100, b"\x0a\0\0\1"),), 60, 7
)
PEER = PeerRow(b"c" * 32, b"a" * 16, 5, (PREFIX,), (bytes((0, 0, 0, 0, 0)),), b"secret", 2, True)
SERVER = ServerRow(b"m" * 32, b"c" * 32, b"u" * 4, 51822, 51821, b"a" * 16, b"b" * 16)
CHANGES = (
    Change(Table.META, "overlay", b"x"),
    Change(Table.META, "clock", 1.5),
    Change(Table.SERVERS, "ms1", SERVER),
    Change(Table.PEERS, "a1", PEER),
    Change(Table.PEERS, "a2", None),
    Change(Table.MAPPINGS, (5, PREFIX), MAPPING),
    Change(Table.MAPPINGS, (5, PREFIX), None),
    Change(Table.REVOCATIONS, 3, RevocationRow("a1", 5, (PREFIX,), b"k" * 32)),
    Change(Table.REVOCATIONS, 1, None),
)
MESSAGES: list[FeedMessage] = [
    Attach(0),
    Forward(("fd77::1", 4342), b"\x30datagram"),
    Barrier(1 << 40),
    ResponderNote({"answers": 5}),
    TableBegin(17),
    Rows(CHANGES),
    Rows(()),
    TableEnd(17),
    Changes(18, CHANGES),
    Changes(19, (), more=True),
    Lease(123.25),
    Answer(("192.0.2.1", 4342), b""),
    BarrierDone(9, ok=False),
    WhoKnows(7, "a1", "", 100),
    Known(7, (Contact("a1", "a2", 12.5, "heard"), Contact("a2", "a1", 12.5, "waiting"))),
    Known(8, ()),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_a_message_comes_back_as_it_was(message: FeedMessage) -> None:
    (packet,) = encode(message)
    assert decode(packet) == message


def test_rows_come_back_as_their_own_types() -> None:
    (packet,) = encode(Rows(CHANGES))
    rows = decode(packet)
    assert isinstance(rows, Rows)
    assert [type(change.row) for change in rows.changes[2:4]] == [ServerRow, PeerRow]
    mapping = rows.changes[5].row
    assert isinstance(mapping, MappingRow)
    assert isinstance(mapping.locators[0], LocatorRow)
    assert rows.changes[5].table is Table.MAPPINGS


def test_long_rows_travel_in_several_packets() -> None:
    changes = tuple(
        Change(Table.MAPPINGS, (0, bytes((32,)) + n.to_bytes(4)), MAPPING) for n in range(5000)
    )
    packets = list(encode(Rows(changes)))
    assert len(packets) > 10
    assert max(map(len, packets)) <= MAX_PACKET
    pieces = [decode(packet) for packet in packets]
    assert sum((p.changes for p in pieces if isinstance(p, Rows)), ()) == changes


def test_only_the_last_piece_of_long_changes_completes_the_index() -> None:
    changes = tuple(Change(Table.PEERS, f"peer{n}", PEER) for n in range(1000))
    pieces = [decode(packet) for packet in encode(Changes(33, changes))]
    assert all(isinstance(p, Changes) and p.index == 33 for p in pieces)
    assert [p.more for p in pieces if isinstance(p, Changes)] == [True] * (len(pieces) - 1) + [
        False
    ]
    pieces = [decode(packet) for packet in encode(Changes(33, changes, more=True))]
    assert all(p.more for p in pieces if isinstance(p, Changes))


def test_a_row_that_fits_no_packet_is_refused() -> None:
    row = PEER._replace(lisp_key=bytes(MAX_PACKET))
    with pytest.raises(FeedError, match="a row of"):
        list(encode(Rows((Change(Table.PEERS, "a1", row),))))
    with pytest.raises(FeedError, match="a Forward of"):
        list(encode(Forward(("::1", 1), bytes(MAX_PACKET))))


def test_tables_that_are_the_replicas_own_do_not_travel() -> None:
    row = AuditRow(1.0, "", "", "", "", "", "")
    with pytest.raises(FeedError, match="AUDIT"):
        list(encode(Rows((Change(Table.AUDIT, 1, row),))))


BAD: dict[str, object] = {
    "no list": 5,
    "empty": [],
    "kind": ["attach"],
    "unknown kind": [99, 1],
    "too few": [1],
    "too many": [1, 2, 3],
    "negative": [1, -1],
    "truth is no number": [1, True],
    "address": [2, 5, 4342, b""],
    "port": [2, "::1", 65536, b""],
    "text datagram": [2, "::1", 1, "x"],
    "lease of text": [20, "soon"],
    "lease whole number": [20, 5],
    "counters": [4, {"a": "b"}],
    "too many counters": [4, {str(n): n for n in range(1000)}],
    "changes no list": [17, "abc"],
    "audit": [17, [[6, 1, None]]],
    "table": [17, [["META", "a", 1]]],
    "meta key": [17, [[0, 5, 1]]],
    "meta list": [17, [[0, "a", [1]]]],
    "mapping key": [17, [[4, PREFIX, None]]],
    "prefix length": [17, [[4, [0, bytes((33, 1, 2, 3, 4))], None]]],
    "prefix host bits": [17, [[4, [0, bytes((24, 1, 2, 3, 4))], None]]],
    "prefix bytes": [17, [[4, [0, b"abc"], None]]],
    "instance": [17, [[4, [1 << 32, PREFIX], None]]],
    "short row": [17, [[4, [0, PREFIX], list(MAPPING[:4])]]],
    "key length": [17, [[4, [0, PREFIX], ["a", b"k", [], 1, 1]]]],
    "version": [17, [[4, [0, PREFIX], ["a", b"", [], 1, 4096]]]],
    "locator": [17, [[4, [0, PREFIX], ["a", b"", [[b"abc", 1, 1, 1, b""]], 1, 1]]]],
}


@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
def test_what_is_not_exactly_a_message_is_refused(value: object) -> None:
    with pytest.raises(FeedError):
        decode(msgpack.packb(value))


def test_left_over_and_missing_bytes_are_refused() -> None:
    (packet,) = encode(Attach(1))
    for wrong in (b"", packet + b"\0", packet[:-1], b"\xc1", b"\xdd\xff\xff\xff\xff"):
        with pytest.raises(FeedError):
            decode(wrong)
    with pytest.raises(FeedError, match="more than"):
        decode(bytes(MAX_PACKET + 1))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_feed_error(packet: bytes) -> None:
    try:
        message = decode(packet)
    except FeedError:
        return
    assert decode(next(encode(message))) == message
