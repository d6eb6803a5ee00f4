"""Rows as msgpack carries them, and back: ``[table, key, row]`` with positional rows."""

from collections.abc import Iterable, Iterator
from typing import Any

import msgpack

from wgmap_cluster.fsm.rows import ROW_TYPES, Change, Key, LocatorRow, MappingRow, Row, Table

_PAIR_KEYS = frozenset({Table.MAPPINGS, Table.VERSIONS})
_NUMBER_KEYS = frozenset({Table.AUDIT, Table.REVOCATIONS, Table.INSTANCES})
_BARE_ROWS = (int, float, bytes, str)


class PackingError(ValueError):
    """Bytes that are not rows of the replicated tables."""


def unpack_change(raw: Any) -> Change:
    """Build a change from what msgpack gave (with use_list=False); raises PackingError."""
    try:
        number, key, row = raw
        table = Table(number)
    except (TypeError, ValueError) as error:
        raise PackingError(f"not a change: {raw!r:.80}") from error
    return Change(table, _key(table, key), None if row is None else _row(table, row))


def pack_rows(changes: Iterable[Change], most: int) -> Iterator[bytes]:
    """Write changes one after another into pieces of at most ``most`` bytes each."""
    packer = msgpack.Packer(autoreset=True)
    piece: list[bytes] = []
    size = 0
    for change in changes:
        data = packer.pack(change)
        if piece and size + len(data) > most:
            yield b"".join(piece)
            piece, size = [], 0
        piece.append(data)
        size += len(data)
    if piece:
        yield b"".join(piece)


def unpack_rows(piece: bytes) -> Iterator[Change]:
    """Read one piece; raises PackingError."""
    unpacker = msgpack.Unpacker(use_list=False, max_buffer_size=max(len(piece), 1))
    unpacker.feed(piece)
    try:
        for raw in unpacker:
            yield unpack_change(raw)
    except PackingError:
        raise
    except (ValueError, msgpack.UnpackException) as error:
        raise PackingError(f"not msgpack: {error}") from error
    if unpacker.tell() != len(piece):
        raise PackingError("a piece ends within a row")


def _key(table: Table, key: Any) -> Key:
    if table in _PAIR_KEYS:
        if not (isinstance(key, tuple) and len(key) == 2):
            raise PackingError(f"{table.name}: not a prefix key: {key!r:.80}")
        return int(key[0]), bytes(key[1])
    wanted = int if table in _NUMBER_KEYS else str
    if not isinstance(key, wanted):
        raise PackingError(f"{table.name}: not a key: {key!r:.80}")
    return key


def _row(table: Table, raw: Any) -> Row:
    kind = ROW_TYPES.get(table)
    if kind is None:
        if not isinstance(raw, _BARE_ROWS):
            raise PackingError(f"{table.name}: not a value: {raw!r:.80}")
        return raw
    try:
        row: Any = kind(*raw)
        if isinstance(row, MappingRow):
            row = row._replace(locators=tuple(LocatorRow(*each) for each in row.locators))
    except TypeError as error:
        raise PackingError(f"{table.name}: not a row: {raw!r:.80}") from error
    built: Row = row
    return built
