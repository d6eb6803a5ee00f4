"""Listening on a unix stream socket: private from its first moment, and one listener a path."""

import os
import socket
import stat
from pathlib import Path

from wgmap.errors import ConfigError, ConflictError


def listen(path: Path, mode: int = 0o600) -> socket.socket:
    """Listen at ``path``; replaces the file of a dead process.

    Raises ConflictError where somebody listens there, ConfigError where it cannot be had.
    """
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _remove_dead(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.fchmod(listener.fileno(), mode)  # before bind: the file never has another mode
            listener.bind(str(path))
            path.chmod(mode)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        msg = f"{path}: {error.strerror or error}"
        raise ConfigError(msg) from error
    return listener


def _remove_dead(path: Path) -> None:
    """Remove the socket of a process that is gone; raises ConflictError where one lives."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        msg = f"{path}: not a socket, not touched"
        raise ConfigError(msg)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    msg = f"{path}: another process listens there"
    raise ConflictError(msg)
