"""Snapshots: written by a thread, checked as a whole before they are believed.

Cures: a broken file that is ignored (P8), one installed although the state is newer (P13), and
the flood of a server that waits for one.

    file:  "wgmapsn1", then frames
    frame: length u32 | CRC of the data, continued from the frame before u32 | data

The first frame is msgpack [version, index, term, [[name, address, disk], ...]], the disk only
where the log tells it; each of the others is one piece of the state machine; a frame of length 0
ends the file.
"""

import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import msgpack

from wgmap_cluster.raft.disk import CorruptError, Disk, OutFile, beside
from wgmap_cluster.raft.interface import LogError, Member

_MAGIC = b"wgmapsn1"
_FRAME = struct.Struct("<II")
_VERSION = 1
MAX_PIECE_BYTES = 1 << 20
_BREATH_S = 0.0002  # after each piece


@dataclass(frozen=True, slots=True)
class SnapshotMeta:
    """The last entry that a snapshot covers, and the servers as of that entry."""

    index: int
    term: int
    members: tuple[Member, ...]

    def pack(self) -> bytes:
        """Return the first frame's data."""
        members = [member.fields() for member in self.members]
        return bytes(msgpack.packb([_VERSION, self.index, self.term, members]))

    @classmethod
    def unpack(cls, data: bytes) -> "SnapshotMeta":
        """Read the first frame's data; raises ValueError."""
        version, index, term, members = msgpack.unpackb(data)
        if version != _VERSION:
            msg = f"version {version} is not known"
            raise ValueError(msg)
        return cls(index, term, tuple(Member(*fields) for fields in members))


def _framed(data: bytes, crc: int) -> tuple[bytes, int]:
    crc = zlib.crc32(data, crc)
    return _FRAME.pack(len(data), crc) + data, crc


def _breathe() -> None:
    """Let the loop's thread have the interpreter, if this is another one."""
    if threading.current_thread() is not threading.main_thread():
        time.sleep(_BREATH_S)


def write(file: OutFile, meta: SnapshotMeta, pieces: Iterable[bytes]) -> None:
    """Write and sync a snapshot; raises LogError."""
    file.write(_MAGIC)
    frame, crc = _framed(meta.pack(), 0)
    file.write(frame)
    for piece in pieces:
        if not 0 < len(piece) <= MAX_PIECE_BYTES:
            msg = f"a snapshot piece of {len(piece)} bytes"
            raise LogError(msg)
        frame, crc = _framed(piece, crc)
        file.write(frame)
        _breathe()
    file.write(_framed(b"", crc)[0])
    file.sync()


class SnapshotReader:
    """Reads one file, frame by frame; raises CorruptError with the offset."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self._offset, self._crc = len(_MAGIC), 0
        if file.read(len(_MAGIC)) != _MAGIC:
            raise CorruptError(path, 0, "not a snapshot of this version")
        try:
            self.meta = SnapshotMeta.unpack(self._frame() or b"")
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise CorruptError(path, len(_MAGIC), "the head cannot be read") from error

    def _frame(self) -> bytes:
        head = self._file.read(_FRAME.size)
        length, crc = _FRAME.unpack(head) if len(head) == _FRAME.size else (0, None)
        data = self._file.read(length) if length <= MAX_PIECE_BYTES else b""
        self._crc = zlib.crc32(data, self._crc)
        if len(data) != length or crc != self._crc:
            raise CorruptError(self._path, self._offset, "a broken or missing frame")
        self._offset += _FRAME.size + length
        return data

    def pieces(self) -> Iterator[bytes]:
        """Yield the pieces of the state machine."""
        while piece := self._frame():
            yield piece
        if self._file.read(1):
            raise CorruptError(self._path, self._offset, "data behind the end")


def read_meta(disk: Disk, path: Path) -> SnapshotMeta | None:
    """Check a whole file; None if there is none. Raises CorruptError: never a wrong state (P8)."""
    file = disk.open(path)
    if file is None:
        return None
    with file:
        reader = SnapshotReader(path, file)
        for _ in reader.pieces():
            pass
        return reader.meta


class Job(Protocol):
    """Work that goes on in the background."""

    def done(self) -> bool:
        """Tell whether it ended; raises LogError where it failed."""
        ...


class Background(Protocol):
    """Starts work in the background; the simulation has its own."""

    def __call__(self, work: Callable[[], None]) -> Job:
        """Start ``work``, which raises nothing but LogError."""
        ...


class ThreadJob:
    """A job in a thread of its own; a failure of any kind shows in done()."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="snapshot", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001  # handed to the loop, which ends on it
            self._error = error

    def done(self) -> bool:
        """Tell whether it ended; raises LogError where it failed."""
        if self._thread.is_alive():
            return False
        self._thread.join()
        if isinstance(self._error, LogError):
            raise self._error
        if self._error is not None:
            msg = f"the snapshot failed: {self._error!r}"
            raise LogError(msg) from self._error
        return True


@dataclass(slots=True)
class _Incoming:
    file: OutFile
    whose: tuple[int, int]
    total: int
    offset: int = 0


class SnapshotStore:
    """The snapshot of one server: at most one file in use, one being written, one coming in."""

    def __init__(self, disk: Disk, path: Path, background: Background = ThreadJob) -> None:
        self._disk, self.path, self._background = disk, path, background
        self._saving: tuple[Job, SnapshotMeta] | None = None
        self._incoming: _Incoming | None = None
        self.meta = read_meta(disk, path)

    @property
    def saving(self) -> bool:
        """Whether one is being written."""
        return self._saving is not None

    def pieces(self) -> Iterator[bytes]:
        """Yield the pieces of the snapshot in use."""
        file = self._disk.open(self.path)
        if file is None:
            raise CorruptError(self.path, 0, "the snapshot is gone")
        with file:
            yield from SnapshotReader(self.path, file).pieces()

    # Writing one.
    def save(self, meta: SnapshotMeta, pieces: Iterable[bytes]) -> None:
        """Start to write one; does nothing while another is being written."""
        if self._saving is not None:
            return
        path = beside(self.path, ".new")

        def work() -> None:
            file = self._disk.create(path)
            try:
                write(file, meta, pieces)
            finally:
                file.close()

        self._saving = (self._background(work), meta)

    def poll(self) -> bool:
        """Take a finished snapshot into use; True if there is a new one. Raises LogError.

        Here and not in the thread, so that it cannot overwrite a newer one installed meanwhile.
        """
        if self._saving is None or not self._saving[0].done():
            return False
        meta = self._saving[1]
        self._saving = None
        if self.meta is not None and meta.index <= self.meta.index:
            self._disk.remove(beside(self.path, ".new"))
            return False
        self._disk.replace(beside(self.path, ".new"), self.path)
        self.meta = meta
        return True

    # Sending it.
    def open(self) -> tuple[SnapshotMeta, BinaryIO] | None:
        """Open the snapshot in use for sending; it stays readable when a newer one replaces it."""
        file = self._disk.open(self.path)
        return None if self.meta is None or file is None else (self.meta, file)

    # Receiving one.
    def receive(self, whose: tuple[int, int], total: int, offset: int, data: bytes) -> int:
        """Take a piece of another server's file; return up to where it is here.

        ``whose`` is the term of the leader that sends it, and the index of the snapshot: two
        leaders' files of one index need not be equal to the byte, so they are never mixed.
        Anything but the piece that follows is left alone; offset 0 starts anew.
        """
        incoming = self._incoming
        if offset == 0 and (incoming is None or incoming.whose != whose or incoming.offset == 0):
            self.drop_incoming()
            file = self._disk.create(beside(self.path, ".in"))
            incoming = self._incoming = _Incoming(file, whose, total)
        if incoming is None or incoming.whose != whose:
            return 0
        if incoming.offset == offset:
            incoming.file.write(data)
            incoming.offset += len(data)
        return incoming.offset

    def install(self) -> SnapshotMeta:
        """Take the received file into use, durably; raises LogError."""
        incoming = self._incoming
        if incoming is None or incoming.offset != incoming.total:
            raise AssertionError("the snapshot is not complete")
        path = beside(self.path, ".in")
        incoming.file.sync()
        self.drop_incoming()
        meta = read_meta(self._disk, path)
        if meta is None:
            raise CorruptError(path, 0, "the received snapshot is gone")
        self._disk.replace(path, self.path)
        self.meta = meta
        return meta

    def drop_incoming(self) -> None:
        """Forget what has been received so far."""
        if self._incoming is not None:
            self._incoming.file.close()
            self._incoming = None
