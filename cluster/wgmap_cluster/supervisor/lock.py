"""One daemon for a state directory."""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from wgmap.errors import ConfigError, ConflictError

LOCK_NAME = "lock"


class StateLock:
    """Holds the lock of a state directory while it is entered; made where it is not there.

    The lock belongs to this process alone: the descriptor is closed in every program that this
    process starts, so that a WireGuard process that outlives it does not keep the lock.
    """

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / LOCK_NAME
        self._descriptor = -1

    def __enter__(self) -> Self:
        """Take the lock; raises ConflictError where another holds it, ConfigError."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise ConfigError(f"{self._path}: {error.strerror}") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            who = f"process {holder}" if holder else "another process"
            raise ConflictError(f"{self._path.parent} is in use by {who}") from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)
