"""The few file operations that the log needs, so that a simulated disk can stand in.

A failing operation raises LogError naming the file: after a failed write or sync nothing is known
about what is on the disk, so the server must end and read it again.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from wgmap_cluster.raft.interface import LogError


class CorruptError(LogError):
    """A file of the log holds what was never written."""

    def __init__(self, path: Path, offset: int, reason: str) -> None:
        super().__init__(f"{path}: corrupt at offset {offset}: {reason}")
        self.path, self.offset, self.reason = path, offset, reason


class OutFile(Protocol):
    """A file that is only appended to."""

    def write(self, data: bytes) -> None:
        """Append; not durable before sync."""
        ...

    def sync(self) -> None:
        """Return once all that was written survives a loss of power."""
        ...

    def close(self) -> None:
        """Close without a sync."""
        ...


class Disk(Protocol):
    """What the log does with files; every method raises LogError where the disk fails."""

    def read(self, path: Path) -> bytes | None:
        """Return the content, None if there is no such file."""
        ...

    def open(self, path: Path) -> BinaryIO | None:
        """Open for reading, None if there is no such file."""
        ...

    def create(self, path: Path) -> OutFile:
        """Create or empty a file."""
        ...

    def append(self, path: Path) -> OutFile:
        """Open an existing file at its end."""
        ...

    def truncate(self, path: Path, size: int) -> None:
        """Cut a file, durably."""
        ...

    def replace(self, source: Path, target: Path) -> None:
        """Rename over ``target``, durably; ``source`` has been synced."""
        ...

    def remove(self, path: Path) -> None:
        """Remove a file if it is there."""
        ...


def beside(path: Path, suffix: str) -> Path:
    """Return the path of a helper file of ``path``; never that of another file's helper."""
    return path.with_name(path.name + suffix)


@contextlib.contextmanager
def _reporting(path: Path, action: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        msg = f"{path}: cannot {action}: {error.strerror or error}"
        raise LogError(msg) from error


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class _RealFile:
    def __init__(self, path: Path, flags: int) -> None:
        self._path = path
        with _reporting(path, "open"):
            self._fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags, 0o600)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        with _reporting(self._path, "write"):
            while view:
                view = view[os.write(self._fd, view) :]

    def sync(self) -> None:
        with _reporting(self._path, "sync"):
            os.fdatasync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):  # what matters was synced, or the server ends
                os.close(self._fd)
            self._fd = -1


class RealDisk:
    """The file system."""

    def read(self, path: Path) -> bytes | None:
        """See Disk."""
        with _reporting(path, "read"):
            try:
                return path.read_bytes()
            except FileNotFoundError:
                return None

    def open(self, path: Path) -> BinaryIO | None:
        """See Disk."""
        with _reporting(path, "open"):
            try:
                return path.open("rb")
            except FileNotFoundError:
                return None

    def create(self, path: Path) -> OutFile:
        """See Disk."""
        return _RealFile(path, os.O_CREAT | os.O_TRUNC)

    def append(self, path: Path) -> OutFile:
        """See Disk."""
        return _RealFile(path, os.O_APPEND)

    def truncate(self, path: Path, size: int) -> None:
        """See Disk."""
        file = _RealFile(path, 0)
        try:
            with _reporting(path, "truncate"):
                os.truncate(path, size)
            file.sync()
        finally:
            file.close()

    def replace(self, source: Path, target: Path) -> None:
        """See Disk."""
        with _reporting(target, "replace"):
            new = not target.exists()
            source.replace(target)
            _sync_directory(target.parent)
            if new:  # and so is the directory, perhaps
                _sync_directory(target.parent.parent)

    def remove(self, path: Path) -> None:
        """See Disk."""
        with _reporting(path, "remove"):
            path.unlink(missing_ok=True)
