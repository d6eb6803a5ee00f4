"""A listening unix socket that only its owner may open, and the removal of stale ones."""

import os
import socket
import stat
from pathlib import Path

from wgmap.errors import ConfigError

MODE = 0o600
BACKLOG = 64


def listen(path: Path) -> socket.socket:
    """Listen on ``path``; what a dead process left there is replaced.

    Raises ConfigError where something else lies there, somebody listens, or it cannot be made.
    """
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _remove_stale(path)
        return _bind(path)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error


def remove(path: Path) -> None:
    """Remove the file, before the listener is closed: then it cannot be anybody else's."""
    path.unlink(missing_ok=True)


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"{path}: is there and is no socket")
    if _is_alive(path):
        raise ConfigError(f"{path}: another process listens there")
    path.unlink(missing_ok=True)


def _is_alive(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except TimeoutError:
            return True  # its backlog is full: busy, not dead
        return True


def _bind(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # On Linux bind() takes the file's mode from the socket: never open to others, not even
        # for a moment.
        os.fchmod(listener.fileno(), MODE)
        listener.bind(str(path))
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener
