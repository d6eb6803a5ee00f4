"""The write-ahead log: term, vote and entries, append-only, one sync a tick.

Cures, of the library's journal: rewriting in place (P4: a kill during compaction loses the log),
the forgotten vote, the missing CRC and the missing sync.

    file:   "wgmapwal" | version u32 | nonce u64, then batches
    batch:  "WGB1" | length u32 | own offset u64 | CRC of payload u32 | CRC of header u32 | payload
    record: kind u8 | length u32 | body

A batch is what one sync made durable, and the next is written only after that sync. So a broken
batch at the end was never acknowledged: it is cut. A broken batch with another one behind it was
acknowledged: the server must not start. The nonce keeps a command's bytes from passing for a
batch header. All numbers are little-endian.

What this cannot tell apart from a torn write: a bit that flips, later, inside the last batch.
"""

import logging
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import msgpack

from wgmap_cluster.raft.disk import CorruptError, Disk, OutFile, beside

log = logging.getLogger(__name__)

Entry: TypeAlias = tuple[bytes, int, int]  # command, index, term: the library's order

_FILE = struct.Struct("<8sIQ")
_BATCH = struct.Struct("<4sIQII")
_RECORD = struct.Struct("<BI")
_PAIR = struct.Struct("<QQ")
_ENTRY_HEAD = struct.Struct("<BIQQ")  # a record's head and the two numbers of an entry
_MAGIC, _VERSION, _BATCH_MAGIC = b"wgmapwal", 1, b"WGB1"
_BASE, _ENTRY, _TRUNCATE, _TERM, _COMMIT, _STORES = 1, 2, 3, 4, 5, 6
OWN = ""  # the key of this server's own store among the stores
PLACEHOLDER = b"\x01"  # stands for the command of the first entry, which is never applied again


def _record(kind: int, body: bytes) -> bytes:
    return _RECORD.pack(kind, len(body)) + body


def _entry_head(entry: Entry) -> bytes:
    """Return the record of an entry up to its command, which is the rest of it."""
    command, index, term = entry
    return _ENTRY_HEAD.pack(_ENTRY, _PAIR.size + len(command), index, term)


def _batch(offset: int, nonce: int, payload: bytes) -> bytes:
    fields = (_BATCH_MAGIC, len(payload), offset, zlib.crc32(payload))
    header = _BATCH.pack(*fields, 0)[:-4]
    return header + zlib.crc32(header, nonce & 0xFFFFFFFF).to_bytes(4, "little") + payload


def _header_length(data: bytes, offset: int, nonce: int) -> int | None:
    """Return the payload length of the batch header at ``offset``, None if there is none."""
    if offset + _BATCH.size > len(data):
        return None
    magic, length, own, _, crc = _BATCH.unpack_from(data, offset)
    header = data[offset : offset + _BATCH.size - 4]
    good = magic == _BATCH_MAGIC and own == offset
    return int(length) if good and crc == zlib.crc32(header, nonce & 0xFFFFFFFF) else None


def _whole_batch(data: bytes, offset: int, nonce: int) -> bytes | None:
    length = _header_length(data, offset, nonce)
    if length is None:
        return None
    start = offset + _BATCH.size
    payload = data[start : start + length]
    crc = _BATCH.unpack_from(data, offset)[3]
    return payload if len(payload) == length and zlib.crc32(payload) == crc else None


def _has_later_batch(data: bytes, offset: int, nonce: int) -> bool:
    position = data.find(_BATCH_MAGIC, offset + 1)
    while position >= 0:
        if _header_length(data, position, nonce) is not None:
            return True
        position = data.find(_BATCH_MAGIC, position + 1)
    return False


class LogImage:
    """What the records of a file say; also what the running log keeps in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.nonce = 0
        self.entries: list[Entry] = []
        self.term = 0
        self.vote: str | None = None
        self.commit = 0
        self.stores: dict[str, bytes] = {}  # server -> identity of its disk; OWN: of this one
        self.valid_size = 0  # bytes up to the end of the last whole batch
        self.file_size = 0

    @property
    def first(self) -> int:
        """Index of the first entry; its command is a placeholder."""
        return self.entries[0][1]

    @property
    def last(self) -> int:
        """Index of the last entry."""
        return self.entries[-1][1]

    @classmethod
    def parse(cls, path: Path, data: bytes) -> "LogImage":
        """Read a whole file; raises CorruptError. A torn tail shows as valid_size < file_size."""
        image = cls(path)
        image.file_size = len(data)
        if len(data) < _FILE.size:
            raise CorruptError(path, 0, "the file header is cut short")
        magic, version, image.nonce = _FILE.unpack_from(data)
        if magic != _MAGIC or version != _VERSION:
            raise CorruptError(path, 0, "not a write-ahead log of this version")
        offset = _FILE.size
        while offset < len(data):
            payload = _whole_batch(data, offset, image.nonce)
            if payload is None:
                image._check_torn(data, offset)
                break
            image._replay(payload, offset + _BATCH.size)
            offset += _BATCH.size + len(payload)
        image.valid_size = offset
        if not image.entries:
            raise CorruptError(path, offset, "it holds no first entry")
        image.commit = max(min(image.commit, image.last), image.first)
        return image

    def _check_torn(self, data: bytes, offset: int) -> None:
        if _has_later_batch(data, offset, self.nonce):
            raise CorruptError(self.path, offset, "a broken batch, followed by another one")

    def _replay(self, payload: bytes, offset: int) -> None:
        position = 0
        while position < len(payload):
            kind, length = _RECORD.unpack_from(payload, position)
            start = position + _RECORD.size
            body = payload[start : start + length]
            handler = self._handlers().get(kind)
            if handler is None:
                raise CorruptError(self.path, offset + position, f"unknown record {kind}")
            handler(body, offset + position)
            position = start + length

    def _handlers(self) -> dict[int, Callable[[bytes, int], None]]:
        return {
            _BASE: self._on_base,
            _ENTRY: self._on_entry,
            _TRUNCATE: self._on_truncate,
            _TERM: self._on_term,
            _COMMIT: self._on_commit,
            _STORES: self._on_stores,
        }

    def _on_base(self, body: bytes, _offset: int) -> None:
        index, term = _PAIR.unpack(body)
        self.entries = [(PLACEHOLDER, index, term)]

    def _on_entry(self, body: bytes, offset: int) -> None:
        index, term = _PAIR.unpack_from(body)
        if not self.entries or index != self.last + 1:
            raise CorruptError(self.path, offset, f"entry {index} does not follow")
        self.entries.append((body[_PAIR.size :], index, term))

    def _on_truncate(self, body: bytes, offset: int) -> None:
        index = int.from_bytes(body, "little")
        if not self.entries or index <= self.first:
            raise CorruptError(self.path, offset, f"it truncates everything ({index})")
        del self.entries[index - self.first :]

    def _on_term(self, body: bytes, _offset: int) -> None:
        self.term, self.vote = msgpack.unpackb(body)

    def _on_stores(self, body: bytes, _offset: int) -> None:
        self.stores = msgpack.unpackb(body)

    def _on_commit(self, body: bytes, _offset: int) -> None:
        self.commit = int.from_bytes(body, "little")


class WriteAheadLog:
    """The log of one server, on disk and in memory.

    A new one is created by its first sync. Changes are visible in memory at once and durable
    after ``sync``. Every method that touches the disk raises LogError where that fails.
    """

    def __init__(self, disk: Disk, path: Path) -> None:
        self._disk, self.path = disk, path
        data = disk.read(path)
        self.fresh = data is None
        self._buffer: list[bytes] = []
        self._file: OutFile | None = None
        self._commit_written = 0
        self.synced = 0  # index up to which entries are durable
        if data is None:
            self.image = LogImage(path)
            self.image.commit = 1
            self.image.entries = [(PLACEHOLDER, 1, 0)]
            self.image.stores = {OWN: os.urandom(8)}
            self.size = 0
        else:
            self.image = LogImage.parse(path, data)
            self.synced = self.image.last
            self._reopen()

    def _reopen(self) -> None:
        image = self.image
        if image.valid_size < image.file_size:
            log.warning(
                "%s: cut %d bytes of an unfinished write at offset %d",
                self.path, image.file_size - image.valid_size, image.valid_size,
            )  # fmt: skip
            self._disk.truncate(self.path, image.valid_size)
        self.size = image.valid_size
        self._file = self._disk.append(self.path)

    # What is in it.
    @property
    def entries(self) -> list[Entry]:
        """The entries in memory; not to be changed by the caller."""
        return self.image.entries

    @property
    def first(self) -> int:
        """Index of the first entry, which only carries index and term."""
        return self.image.first

    @property
    def last(self) -> int:
        """Index of the last entry."""
        return self.image.last

    @property
    def commit(self) -> int:
        """What is known to be committed; on disk it is a hint that may lag."""
        return self.image.commit

    def term_at(self, index: int) -> int | None:
        """Return the term of an entry, None where it is not held."""
        if not self.first <= index <= self.last:
            return None
        return self.entries[index - self.first][2]

    def slice(self, start: int, stop: int) -> list[Entry]:
        """Return the entries with start <= index < stop; start is not below first."""
        first = self.first
        return self.entries[start - first : stop - first]

    # Changes; durable after sync.
    def append(self, *entries: Entry) -> None:
        """Add entries that follow the last one."""
        held, buffer = self.image.entries, self._buffer
        following = held[-1][1] + 1
        for entry in entries:
            if entry[1] != following:
                raise AssertionError(f"entry {entry[1]} after {following - 1}")
            held.append(entry)
            buffer += (_entry_head(entry), entry[0])
            following += 1

    def truncate(self, index: int) -> None:
        """Remove the entries from ``index`` on, which must not be committed."""
        if index <= self.commit:
            raise AssertionError(f"truncation at {index}, committed {self.commit}")
        del self.entries[index - self.first :]
        self.synced = min(self.synced, index - 1)
        self._buffer.append(_record(_TRUNCATE, index.to_bytes(8, "little")))

    def set_term(self, term: int, vote: str | None) -> None:
        """Store the current term and the candidate voted for in it."""
        self.image.term, self.image.vote = term, vote
        self._buffer.append(_record(_TERM, msgpack.packb([term, vote])))

    def set_stores(self, stores: dict[str, bytes]) -> None:
        """Store which disk belongs to which server; this one's own stays."""
        self.image.stores = {**stores, OWN: self.image.stores[OWN]}
        self._buffer.append(self._stores_record())

    def _stores_record(self) -> bytes:
        return _record(_STORES, msgpack.packb(self.image.stores))

    def set_commit(self, index: int) -> None:
        """Note what is committed; rides along with the next batch."""
        self.image.commit = index

    def flush_commit(self) -> None:
        """Write the commit hint even where nothing else is to be written; not urgent."""
        if self._commit_written != self.commit:
            self._buffer.append(b"")

    def sync(self) -> bool:
        """Make all changes durable: one write, one fdatasync. True if there were any."""
        if not self._buffer:
            return False
        if self.fresh and self._file is None:
            self._rewrite(self.entries)
            return True
        if self._commit_written != self.commit:
            self._buffer.append(_record(_COMMIT, self.commit.to_bytes(8, "little")))
        data = _batch(self.size, self.image.nonce, b"".join(self._buffer))
        file = self._open_file()
        file.write(data)
        file.sync()
        self._buffer.clear()
        self._commit_written = self.commit
        self.size += len(data)
        self.synced = self.last
        return True

    # Compaction.
    def compact(self, index: int) -> None:
        """Drop what is before ``index``, which stays as first entry; durable at once."""
        kept = self.slice(index, self.last + 1)
        self._rewrite([(PLACEHOLDER, index, kept[0][2]), *kept[1:]])

    def reset(self, index: int, term: int) -> None:
        """Start anew behind a snapshot; durable at once, term and vote stay."""
        self.image.commit = index
        self._rewrite([(PLACEHOLDER, index, term)])

    def _rewrite(self, entries: list[Entry]) -> None:
        """Replace the file as a whole (P4): new file, sync, rename, sync of the directory."""
        self.close()
        self._buffer.clear()
        self.image.nonce = int.from_bytes(os.urandom(8), "little")
        self.image.entries = entries
        temporary = beside(self.path, ".new")
        file = self._disk.create(temporary)
        self.size = 0
        for block in self._file_blocks(entries):
            file.write(block)
            self.size += len(block)
        file.sync()
        file.close()
        self._disk.replace(temporary, self.path)
        self._commit_written = self.commit
        self.synced = self.last
        self._file = self._disk.append(self.path)

    def _file_blocks(self, entries: list[Entry]) -> Iterator[bytes]:
        yield _FILE.pack(_MAGIC, _VERSION, self.image.nonce)
        head = [
            _record(_BASE, _PAIR.pack(entries[0][1], entries[0][2])),
            _record(_TERM, msgpack.packb([self.image.term, self.image.vote])),
            self._stores_record(),
        ]
        yield self._framed(head)
        for start in range(1, len(entries), 1000):
            some = entries[start : start + 1000]
            yield self._framed(part for entry in some for part in (_entry_head(entry), entry[0]))
        yield self._framed([_record(_COMMIT, self.commit.to_bytes(8, "little"))])

    def _framed(self, records: Iterable[bytes]) -> bytes:
        return _batch(self.size, self.image.nonce, b"".join(records))

    def close(self) -> None:
        """Close without a sync."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open_file(self) -> OutFile:
        if self._file is None:
            raise AssertionError("the write-ahead log is closed")
        return self._file
