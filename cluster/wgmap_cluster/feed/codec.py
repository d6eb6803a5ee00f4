"""Messages of the feed as bytes: msgpack, positional, strict.

Both ends are of one version and on one host, so a packet that does not read exactly as written
here is a defect: FeedError, and the connection is closed.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import msgpack

from wgmap_cluster.feed.messages import (
    MAX_PACKET,
    Answer,
    Attach,
    Barrier,
    BarrierDone,
    Changes,
    Contact,
    FeedMessage,
    Forward,
    Known,
    Lease,
    ResponderNote,
    Rows,
    TableBegin,
    TableEnd,
    WhoKnows,
)
from wgmap_cluster.fsm.rows import (
    FEED_TABLES,
    Change,
    InstanceRow,
    Key,
    LocatorRow,
    MappingRow,
    PeerRow,
    RevocationRow,
    ServerRow,
    Table,
)

MAX_COUNTERS = 512
# Reading holds the interpreter for about 6 us a row (measured): under 2 ms for such a piece.
PIECE_BYTES = 16 * 1024
_HEADER_ROOM = 64
_U32 = 1 << 32
_U64 = 1 << 64


class FeedError(Exception):
    """A packet that is not a message of the feed, or a message that fits no packet."""


Fields: TypeAlias = tuple[Any, ...]

# ----------------------------------------------------------------------------------- checks


def _require(condition: bool, what: str) -> None:  # an assertion
    if not condition:
        raise FeedError(f"bad {what}")


def _int(value: object, limit: int = _U64) -> int:
    if type(value) is not int or not 0 <= value < limit:
        raise FeedError(f"not a number below {limit}: {value!r:.40}")
    return value


def _bytes(value: object, *lengths: int) -> bytes:
    if type(value) is not bytes or (lengths and len(value) not in lengths):
        raise FeedError(f"not bytes of length {lengths or 'any'}: {value!r:.40}")
    return value


def _str(value: object, limit: int = 256) -> str:
    if type(value) is not str or len(value) > limit:
        raise FeedError(f"not a text of at most {limit}: {value!r:.40}")
    return value


def _bool(value: object) -> bool:
    if type(value) is not bool:
        raise FeedError(f"not a truth value: {value!r:.40}")
    return value


def _fields(value: object, count: int) -> Fields:
    if type(value) is not tuple or len(value) != count:
        raise FeedError(f"not a list of {count}: {value!r:.40}")
    return value


def _list(value: object) -> Fields:
    if type(value) is not tuple:
        raise FeedError(f"not a list: {value!r:.40}")
    return value


def _prefix(value: object) -> bytes:
    data = _bytes(value, 5, 17)
    bits = 8 * (len(data) - 1)
    spare = bits - data[0]
    if spare < 0 or int.from_bytes(data[1:]) & ((1 << spare) - 1):
        raise FeedError(f"not a prefix: {data.hex()}")
    return data


# ------------------------------------------------------------------------------------- rows


def _server(row: object) -> ServerRow:
    f = _fields(row, 7)
    return ServerRow(
        _bytes(f[0], 32),
        _bytes(f[1], 32),
        _bytes(f[2], 4, 16),
        _int(f[3], 65536),
        _int(f[4], 65536),
        _bytes(f[5], 4, 16),
        _bytes(f[6], 4, 16),
    )


def _peer(row: object) -> PeerRow:
    f = _fields(row, 10)
    return PeerRow(
        _bytes(f[0], 0, 32),
        _bytes(f[1], 4, 16),
        _int(f[2], _U32),
        tuple(map(_prefix, _list(f[3]))),
        tuple(map(_prefix, _list(f[4]))),
        _bytes(f[5]),
        _int(f[6], 256),
        _bool(f[7]),
        _int(f[8], _U32),
        _int(f[9]),
    )


def _locator(row: object) -> LocatorRow:
    f = _fields(row, 5)
    return LocatorRow(
        _bytes(f[0], 4, 16),
        _int(f[1], 65536),
        _int(f[2], 256),
        _int(f[3], 256),
        _bytes(f[4], 0, 4, 16),
    )


def _mapping(row: object) -> MappingRow:
    f = _fields(row, 5)
    return MappingRow(
        _str(f[0]),
        _bytes(f[1], 0, 32),
        tuple(map(_locator, _list(f[2]))),
        _int(f[3], _U32),
        _int(f[4], 4096),
    )


def _revocation(row: object) -> RevocationRow:
    f = _fields(row, 4)
    prefixes = tuple(map(_prefix, _list(f[2])))
    return RevocationRow(_str(f[0]), _int(f[1], _U32), prefixes, _bytes(f[3], 0, 32))


def _instance(row: object) -> InstanceRow:
    overlay, max_mappings = _fields(row, 2)
    return InstanceRow(tuple(map(_prefix, _list(overlay))), _int(max_mappings, _U32))


def _meta(row: object) -> int | float | bytes | str:
    if type(row) not in (int, float, bytes, str):
        raise FeedError(f"not a value: {row!r:.40}")
    return row  # type: ignore[return-value]  # its exact type was looked at


_ROWS: dict[Table, Callable[[object], Any]] = {
    Table.META: _meta,
    Table.SERVERS: _server,
    Table.PEERS: _peer,
    Table.MAPPINGS: _mapping,
    Table.REVOCATIONS: _revocation,
    Table.INSTANCES: _instance,
}
_TABLES: dict[int, Table] = {int(table): table for table in _ROWS}


def _mapping_key(key: object) -> tuple[int, bytes]:
    instance, prefix = _fields(key, 2)
    return _int(instance, _U32), _prefix(prefix)


def _key(table: Table, key: object) -> Key:
    match table:
        case Table.MAPPINGS:
            return _mapping_key(key)
        case Table.REVOCATIONS | Table.INSTANCES:
            return _int(key)
        case _:
            return _str(key)


def _change(value: object) -> Change:
    number, key, row = _fields(value, 3)
    table = _TABLES.get(number) if type(number) is int else None
    if table is None:
        raise FeedError(f"not a table of the feed: {number!r:.40}")
    return Change(table, _key(table, key), None if row is None else _ROWS[table](row))


def _changes(value: object) -> tuple[Change, ...]:
    return tuple(map(_change, _list(value)))


# --------------------------------------------------------------------------------- messages

_ATTACH, _FORWARD, _BARRIER, _NOTE, _KNOWN = range(1, 6)
_BEGIN, _ROWS_KIND, _END, _CHANGES, _LEASE, _ANSWER, _DONE, _WHO = range(16, 24)


def _datagram(kind: type[Answer | Forward], f: Fields) -> Answer | Forward:
    address, port, datagram = _fields(f, 3)
    return kind((_str(address), _int(port, 65536)), _bytes(datagram))


def _lease(f: Fields) -> Lease:
    (until,) = _fields(f, 1)
    _require(type(until) is float, "lease")
    return Lease(until)


def _done(f: Fields) -> BarrierDone:
    number, ok = _fields(f, 2)
    return BarrierDone(_int(number), _bool(ok))


def _note(f: Fields) -> ResponderNote:
    (counters,) = _fields(f, 1)
    _require(type(counters) is dict and len(counters) <= MAX_COUNTERS, "counters")
    return ResponderNote({_str(name): _int(value) for name, value in counters.items()})


def _who(f: Fields) -> WhoKnows:
    number, peer, other, most = _fields(f, 4)
    return WhoKnows(_int(number), _str(peer), _str(other), _int(most, _U32))


def _contact(value: object) -> Contact:
    agent, subject, at, state = _fields(value, 4)
    _require(type(at) is float, "time")
    return Contact(_str(agent), _str(subject), at, _str(state))


def _known(f: Fields) -> Known:
    number, contacts = _fields(f, 2)
    return Known(_int(number), tuple(map(_contact, _list(contacts))))


def _read_changes(f: Fields) -> Changes:
    index, more, changes = _fields(f, 3)
    return Changes(_int(index), _changes(changes), _bool(more))


_READERS: dict[int, Callable[[Fields], FeedMessage]] = {
    _ATTACH: lambda f: Attach(_int(_fields(f, 1)[0])),
    _FORWARD: lambda f: _datagram(Forward, f),
    _BARRIER: lambda f: Barrier(_int(_fields(f, 1)[0])),
    _NOTE: _note,
    _KNOWN: _known,
    _WHO: _who,
    _BEGIN: lambda f: TableBegin(_int(_fields(f, 1)[0])),
    _ROWS_KIND: lambda f: Rows(_changes(_fields(f, 1)[0])),
    _END: lambda f: TableEnd(_int(_fields(f, 1)[0])),
    _CHANGES: _read_changes,
    _LEASE: _lease,
    _ANSWER: lambda f: _datagram(Answer, f),
    _DONE: _done,
}


def decode(packet: bytes | bytearray | memoryview) -> FeedMessage:
    """Read one packet; raises FeedError."""
    if len(packet) > MAX_PACKET:
        raise FeedError(f"a packet of more than {MAX_PACKET} bytes")
    try:
        values = msgpack.unpackb(packet, use_list=False, strict_map_key=True)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise FeedError(f"not msgpack: {error}") from error
    if type(values) is not tuple or not values or type(values[0]) is not int:
        raise FeedError("not a list that starts with a kind")
    reader = _READERS.get(values[0])
    if reader is None:
        raise FeedError(f"unknown kind {values[0]}")
    return reader(values[1:])


def encode(message: FeedMessage) -> Iterator[bytes]:
    """Write a message as packets: one, or several for long Rows and Changes. Raises FeedError."""
    match message:
        case Rows():
            for piece, _ in _pieces(message.changes):
                yield _head(2, _ROWS_KIND) + piece
        case Changes():
            for piece, more in _pieces(message.changes):
                yield _head(4, _CHANGES, message.index, more or message.more) + piece
        case _:
            packet = _pack(*_WRITERS[type(message)](message))
            if len(packet) > MAX_PACKET:
                raise FeedError(f"a {type(message).__name__} of {len(packet)} bytes")
            yield packet


_WRITERS: dict[type[FeedMessage], Callable[[Any], Fields]] = {
    Attach: lambda m: (_ATTACH, m.index),
    Forward: lambda m: (_FORWARD, *m.source, m.datagram),
    Barrier: lambda m: (_BARRIER, m.number),
    ResponderNote: lambda m: (_NOTE, m.counters),
    WhoKnows: lambda m: (_WHO, m.number, m.peer, m.other, m.most),
    Known: lambda m: (_KNOWN, m.number, m.contacts),
    TableBegin: lambda m: (_BEGIN, m.index),
    TableEnd: lambda m: (_END, m.index),
    Lease: lambda m: (_LEASE, float(m.until)),
    Answer: lambda m: (_ANSWER, *m.destination, m.datagram),
    BarrierDone: lambda m: (_DONE, m.number, m.ok),
}


def _pack(*values: object) -> bytes:
    data: bytes = msgpack.packb(values)
    return data


def _head(count: int, *values: object) -> bytes:
    """Write the start of a list of ``count`` fields."""
    header: bytes = msgpack.Packer().pack_array_header(count)
    return header + b"".join(map(msgpack.packb, values))


def _pieces(changes: Iterable[Change]) -> Iterator[tuple[bytes, bool]]:
    """Yield msgpack lists of about PIECE_BYTES and whether another follows; at least one."""
    piece: list[bytes] = []
    size = 0
    for change in changes:
        data = _packed_change(change)
        if piece and size + len(data) > PIECE_BYTES:
            yield _joined(piece), True
            piece, size = [], 0
        piece.append(data)
        size += len(data)
    yield _joined(piece), False


def _packed_change(change: Change) -> bytes:
    if change.table not in FEED_TABLES:
        raise FeedError(f"{change.table.name} does not travel in the feed")
    data: bytes = msgpack.packb(change)
    if len(data) > MAX_PACKET - _HEADER_ROOM:
        raise FeedError(f"a row of {len(data)} bytes: {change.table.name} {change.key!r:.60}")
    return data


def _joined(piece: list[bytes]) -> bytes:
    header: bytes = msgpack.Packer().pack_array_header(len(piece))
    return header + b"".join(piece)
