"""The bytes of a backup: a magic line, then frames, the last of which tells that all is there.

    frame: length u32 | CRC-32 of the payload u32 | payload (msgpack [kind, fields...])

    1 head  [format, cluster id, control prefix, index, wall clock, server, server set]
    2 rows  [rows as ``fsm.packing`` writes them]
    3 keys  [server, sealed]          the server's private keys, see ``backup.sealing``
    4 end   [frames before it, SHA-256 of all bytes before it]

All integers are big-endian. Peers come last: see ``backup.restoring``.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgpack

from wgmap.errors import ConfigError
from wgmap_cluster.fsm.packing import PackingError, pack_rows, unpack_rows
from wgmap_cluster.fsm.rows import Change, Key, Meta, Row, Table

MAGIC: Final = b"wgmap backup\n"
FORMAT: Final = 1
ROWS_BYTES: Final = 24 * 1024
MAX_FRAME: Final = 256 * 1024
TABLES: Final = (
    *(Table.META, Table.INSTANCES, Table.VERSIONS, Table.AUDIT, Table.REVOCATIONS),
    *(Table.REGISTRATIONS, Table.MAPPINGS, Table.PEERS),
)
_FRAME = struct.Struct(">II")
_HEAD, _ROWS, _KEYS, _END = range(1, 5)


class BackupError(ConfigError):
    """The bytes are no backup, or not all of one, or were changed."""


@dataclass(frozen=True, slots=True)
class Head:
    """Where a backup comes from."""

    cluster_id: bytes
    control_prefix: str
    index: int  # of the last command that is in it
    wall: str
    server: str
    servers: tuple[tuple[str, bytes], ...]  # names and public control keys


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows."""

    data: bytes

    def changes(self) -> Iterator[Change]:
        """Yield them; raises BackupError."""
        try:
            yield from unpack_rows(self.data)
        except PackingError as error:
            raise BackupError(f"rows of the backup: {error}") from error


@dataclass(frozen=True, slots=True)
class Keys:
    """The private keys of one server, sealed."""

    server: str
    sealed: bytes


Frame: TypeAlias = Head | Rows | Keys
Tables: TypeAlias = dict[Table, dict[Key, Row]]


def copied(tables: dict[Table, dict[Any, Any]]) -> Tables:
    """Copy (shallow) what a backup holds: a picture of this moment."""
    return {table: dict(tables[table]) for table in (*TABLES, Table.SERVERS)}


def write(tables: Tables, index: int, wall: str, server: str, keys: Keys | None) -> Iterator[bytes]:
    """Yield a backup in pieces of bounded size; ``tables`` are not changed meanwhile."""
    digest = hashlib.sha256()
    count = 0
    for count, piece in enumerate(_pieces(tables, index, wall, server, keys)):  # noqa: B007
        digest.update(piece)
        yield piece
    yield _frame([_END, count, digest.digest()])


def _pieces(
    tables: Tables, index: int, wall: str, server: str, keys: Keys | None
) -> Iterator[bytes]:
    yield MAGIC
    meta = tables[Table.META]
    servers = [(name, row[1]) for name, row in tables[Table.SERVERS].items()]  # type: ignore[index]
    origin = [meta[Meta.CLUSTER_ID], meta[Meta.CONTROL_PREFIX]]
    yield _frame([_HEAD, FORMAT, *origin, index, wall, server, servers])
    if keys is not None:
        yield _frame([_KEYS, keys.server, keys.sealed])
    rows = (Change(table, key, row) for table in TABLES for key, row in tables[table].items())
    for piece in pack_rows(rows, ROWS_BYTES):
        yield _frame([_ROWS, piece])


def _frame(values: list[Any]) -> bytes:
    payload: bytes = msgpack.packb(values)
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


class Reader:
    """Takes the bytes of a backup as they come; every frame is checked before it is given out."""

    def __init__(self) -> None:
        """Start before the first byte."""
        self._buffer = bytearray()
        self._begun = self._ended = False
        self._digest = hashlib.sha256()
        self._count = 0
        self.head: Head | None = None

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that are complete; raises BackupError."""
        self._buffer += data
        if not self._begun and not self._take_magic():
            return
        while (payload := self._next()) is not None:
            frame = self._read(payload)
            if frame is not None:
                yield frame

    def finish(self) -> Head:
        """Return the head of a backup that is complete; raises BackupError."""
        if not self._ended or self.head is None:
            raise BackupError("the backup breaks off before its end")
        return self.head

    def _take_magic(self) -> bool:
        if not MAGIC.startswith(self._buffer[: len(MAGIC)]):
            raise BackupError("not a backup of wgmap")
        if len(self._buffer) < len(MAGIC):
            return False
        self._digest.update(MAGIC)
        del self._buffer[: len(MAGIC)]
        self._begun = True
        return True

    def _next(self) -> bytes | None:
        if self._ended and self._buffer:
            raise BackupError("something follows the end of the backup")
        if len(self._buffer) < _FRAME.size:
            return None
        length, crc = _FRAME.unpack_from(self._buffer)
        if length > MAX_FRAME:
            raise BackupError(f"a frame of {length} bytes: the backup is damaged")
        end = _FRAME.size + length
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[_FRAME.size : end])
        if zlib.crc32(payload) != crc:
            raise BackupError(f"frame {self._count + 1} is damaged: its CRC does not fit")
        before = self._digest.digest()
        self._digest.update(self._buffer[:end])
        del self._buffer[:end]
        return self._checked_end(payload, before)

    def _checked_end(self, payload: bytes, before: bytes) -> bytes | None:
        """Look whether this is the end, which must tell of all that came."""
        values = _unpack(payload)
        if values[0] != _END:
            self._count += 1
            return payload
        if values[1:] != (self._count, before):
            raise BackupError("the end of the backup does not fit what came before")
        self._ended = True
        return self._next()

    def _read(self, payload: bytes) -> Frame | None:
        match _unpack(payload):
            case (1, int(form), *_) if form != FORMAT:
                raise BackupError(f"a backup of format {form}: this version reads {FORMAT}")
            case (1, _, bytes(cluster), str(control), int(index), str(wall), str(server), servers):
                self.head = Head(cluster, control, index, wall, server, servers)
                return self.head
            case _ if self.head is None:
                raise BackupError("the backup does not begin with its head")
            case (2, bytes(data)):
                return Rows(data)
            case (3, str(server), bytes(sealed)):
                return Keys(server, sealed)
            case other:
                raise BackupError(f"a frame of kind {other[0]!r:.20} is not known")


def _unpack(payload: bytes) -> tuple[Any, ...]:
    try:
        values = msgpack.unpackb(payload, use_list=False)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise BackupError(f"a frame is not msgpack: {error}") from error
    if not isinstance(values, tuple) or not values:
        raise BackupError("a frame is no list")
    return values


def read(pieces: Iterable[bytes]) -> Iterator[Frame]:
    """Yield the frames of a whole backup; raises BackupError, at the latest at its end."""
    reader = Reader()
    for piece in pieces:
        yield from reader.feed(piece)
    reader.finish()
