"""The state directory: one agent at a time, and what it remembers between runs.

The file holds a magic, a CRC-32 and one msgpack map; it is replaced as a whole. A file that is
damaged, too long or from another version is set aside and told, never a reason not to start:
an agent that lost its state recovers from the map servers.
"""

import contextlib
import fcntl
import os
import struct
import zlib
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, Self

import msgpack

from wgmap.addresses import Endpoint
from wgmap.errors import ConfigError, ConflictError, WgmapError
from wgmap.log import Log
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.types import SavedState, ServerInfo
from wgmap_agent.runner import files

STATE_FILE = "state"
LOCK_FILE = "lock"
MAX_STATE_BYTES = 16 << 20
_MAGIC = b"wgmapag1"
_HEADER = struct.Struct("!8sI")  # magic, CRC-32 of the rest

log = Log("agent.store")


class StateError(WgmapError):
    """The bytes are no saved state; the text says why."""


class Store:
    """The state directory of a running agent, locked against a second one."""

    def __init__(self, directory: Path) -> None:
        """Make and lock the directory; raises ConfigError, or ConflictError if it is in use.

        ``last_wall`` then is the last wall time that a former run noted; None: there was none.
        """
        self.directory = directory
        _make_directory(directory)
        self._lock, self.last_wall = _lock(directory / LOCK_FILE)

    def load(self) -> SavedState:
        """Read the saved state; a fresh one when there is none or it is damaged."""
        path = self.directory / STATE_FILE
        try:
            return decode(_read(path))
        except FileNotFoundError:
            return SavedState()
        except (OSError, StateError) as error:
            log.warning("saved state is set aside", path=path, reason=error)
            _set_aside(path)
            return SavedState()

    def save(self, state: SavedState) -> None:
        """Replace the saved state and wait for the disk; raises StateError."""
        try:
            files.replace(self.directory / STATE_FILE, encode(state))
        except OSError as error:
            msg = f"{self.directory / STATE_FILE}: {error.strerror}"
            raise StateError(msg) from error

    def note_wall(self, wall: float) -> None:
        """Note the wall time (seconds since 1970) as the lock file's; not vital, so never fails."""
        try:
            os.utime(self._lock, (wall, wall))
        except OSError as error:
            log.warning("wall time not noted", reason=error)

    def close(self) -> None:
        """Let go of the directory."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def encode(state: SavedState) -> bytes:
    """Write a state as the bytes of the file; raises StateError when it is too long."""
    fields = {
        "nonce": state.nonce,
        "revocation": state.revocation,
        "revoked": [bytes(key) for key in state.revoked],
        "servers": [_to_list(one) for one in state.servers],
    }
    body: bytes = msgpack.packb(fields)
    if len(body) > MAX_STATE_BYTES:
        msg = f"{len(body)} bytes of state are over {MAX_STATE_BYTES}"
        raise StateError(msg)
    return _HEADER.pack(_MAGIC, zlib.crc32(body)) + body


def decode(data: bytes) -> SavedState:
    """Invert encode; raises StateError."""
    if len(data) < _HEADER.size or len(data) > MAX_STATE_BYTES + _HEADER.size:
        msg = f"{len(data)} bytes are no saved state"
        raise StateError(msg)
    magic, crc = _HEADER.unpack_from(data)
    body = data[_HEADER.size :]
    if magic != _MAGIC:
        raise StateError("written by another version")
    if zlib.crc32(body) != crc:
        raise StateError("the checksum is wrong")
    return _from_map(_unpack(body))


def _unpack(body: bytes) -> dict[str, Any]:
    try:
        fields = msgpack.unpackb(body)
    except (ValueError, msgpack.UnpackException) as error:
        raise StateError(str(error)) from error
    if not isinstance(fields, dict):
        raise StateError("not a map")
    return fields


def _from_map(fields: dict[str, Any]) -> SavedState:
    nonce = fields.get("nonce")
    if not isinstance(nonce, int) or not 0 <= nonce < 1 << 64:
        raise StateError("the nonce is missing or out of range")
    revocation = fields.get("revocation")  # absent where an earlier version wrote the file
    if revocation is not None and (
        not isinstance(revocation, int) or not 0 <= revocation < 1 << 32
    ):
        raise StateError("the number of the last revocation is out of range")
    try:
        revoked = tuple(map(PublicKey, fields.get("revoked", ())))
        servers = tuple(_to_server(*values) for values in fields.get("servers", ()))
    except (TypeError, ValueError) as error:
        raise StateError(f"a key or a server cannot be read: {error}") from error
    return SavedState(nonce, revocation, revoked, servers)


def _to_list(server: ServerInfo) -> list[str | bytes]:
    address = server.control_address.packed
    return [server.name, bytes(server.control_key), str(server.endpoint), address]


def _to_server(name: Any, key: Any, endpoint: Any, address: Any) -> ServerInfo:
    """Invert _to_list; raises TypeError, ValueError."""
    if not (isinstance(name, str) and isinstance(endpoint, str) and isinstance(address, bytes)):
        raise TypeError("a name, an endpoint or an address is none")
    return ServerInfo(name, PublicKey(key), Endpoint.parse(endpoint), IPv6Address(address))


# --------------------------------------------------------------------------------- file system


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{directory}: {error.strerror}"
        raise ConfigError(msg) from error


def _lock(path: Path) -> tuple[int, float | None]:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        msg = f"{path}: {error.strerror}"
        raise ConfigError(msg) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(fd, 32, 0).decode(errors="replace").strip()
        os.close(fd)
        msg = f"{path.parent}: in use by another wgmap-agent (pid {owner or 'unknown'})"
        raise ConflictError(msg) from None
    status = os.fstat(fd)
    last_wall = status.st_mtime if status.st_size else None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    if last_wall is not None:
        os.utime(fd, (last_wall, last_wall))  # until this run notes its own
    return fd, last_wall


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_STATE_BYTES + _HEADER.size + 1)


def _set_aside(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.replace(path.with_name(STATE_FILE + ".bad"))
