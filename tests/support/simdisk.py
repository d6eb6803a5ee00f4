"""A disk in memory that loses what was not synced, tears writes, and can be full or broken."""

from io import BytesIO
from pathlib import Path
from random import Random
from typing import BinaryIO

from wgmap_cluster.raft.disk import OutFile
from wgmap_cluster.raft.interface import LogError


class PowerLossError(BaseException):
    """The power went away in the middle of an operation."""


class _Inode:
    def __init__(self) -> None:
        self.data = bytearray()
        self.synced = 0


class _SimFile:
    def __init__(self, disk: "SimDisk", path: Path, inode: _Inode) -> None:
        self._disk, self._path, self._inode = disk, path, inode
        self._open = True
        self._incarnation = disk.incarnation

    def _check(self) -> None:
        if not self._open or self._incarnation != self._disk.incarnation:
            raise AssertionError(f"{self._path}: used after close or crash")

    def write(self, data: bytes) -> None:
        self._check()
        self._disk.operate()
        if self._disk.fail_writes_after is not None:
            room = max(self._disk.fail_writes_after - self._disk.written, 0)
            self._inode.data += data[:room]
            self._disk.written += len(data)
            if len(data) > room:
                raise LogError(f"{self._path}: cannot write: No space left on device")
        else:
            self._inode.data += data
            self._disk.written += len(data)

    def sync(self) -> None:
        self._check()
        self._disk.operate()
        self._disk.syncs += 1
        if self._disk.fail_syncs:
            raise LogError(f"{self._path}: cannot sync: Input/output error")
        self._inode.synced = len(self._inode.data)

    def close(self) -> None:
        self._open = False


class SimDisk:
    """See wgmap_cluster.raft.disk.Disk. Renames are durable, as replace() promises."""

    def __init__(self) -> None:
        self.files: dict[Path, _Inode] = {}
        self.incarnation = 0
        self.written = 0
        self.syncs = 0
        self.fail_writes_after: int | None = None
        self.fail_syncs = False
        self.power_lost_in: int | None = None  # operations from now

    def operate(self) -> None:
        """Count an operation that changes the disk; the power may go before it."""
        if self.power_lost_in is not None:
            self.power_lost_in -= 1
            if self.power_lost_in < 0:
                raise PowerLossError

    def read(self, path: Path) -> bytes | None:
        inode = self.files.get(path)
        return None if inode is None else bytes(inode.data)

    def open(self, path: Path) -> BinaryIO | None:
        data = self.read(path)
        return None if data is None else BytesIO(data)

    def create(self, path: Path) -> OutFile:
        self.operate()
        inode = self.files[path] = _Inode()
        return _SimFile(self, path, inode)

    def append(self, path: Path) -> OutFile:
        return _SimFile(self, path, self.files[path])

    def truncate(self, path: Path, size: int) -> None:
        self.operate()
        inode = self.files[path]
        del inode.data[size:]
        inode.synced = size

    def replace(self, source: Path, target: Path) -> None:
        self.operate()
        inode = self.files.pop(source)
        if inode.synced != len(inode.data):
            raise AssertionError(f"{source} renamed before a sync")
        self.files[target] = inode

    def remove(self, path: Path) -> None:
        self.operate()
        self.files.pop(path, None)

    def crash(self, rng: Random) -> None:
        """Lose power: of what was not synced, any part may have reached the disk, torn."""
        self.incarnation += 1
        self.power_lost_in = None
        for inode in self.files.values():
            unsynced = inode.data[inode.synced :]
            del inode.data[inode.synced :]
            size = len(unsynced)
            kept = unsynced[: size if rng.random() < 0.25 else rng.randint(0, size)]
            if kept and rng.random() < 0.3:
                hole = rng.randrange(len(kept))
                kept[hole : hole + 512] = bytes(len(kept[hole : hole + 512]))
            inode.data += kept
            inode.synced = len(inode.data)
