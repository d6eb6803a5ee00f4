"""The cached peers on disk, so that an agent that was rebooted reaches them without any server.

    8 bytes magic, 2 bytes version of the form, CRC-32 of the rest, one msgpack map:
        owner       whose cache it is: public control key and instance
        saved       wall time of the saving (seconds since 1970)
        revocation  number of the last revocation that is accounted for, or nil
        peers       [wall time of the confirmation, bytes of a Map-Reply with its records]

It is replaced as a whole. A file that is damaged, another agent's, of a later version, readable
by others or too old is told once and left alone until the next saving: never a reason not to start.
"""

import os
import stat
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import msgpack

from wgmap.lisp import codec
from wgmap.lisp.messages import CodecError, MapReply
from wgmap.log import Log
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.types import CachedPeer, Identity, SaveCache
from wgmap_agent.runner import files
from wgmap_agent.runner.store import StateError

CACHE_FILE = "cache"
VERSION = 1
MAX_BYTES = 16 << 20  # what does not fit is left out, the peers confirmed longest ago first
FUTURE_S = 3600.0  # a clock may have been set back a little; more, and no age is known
_MAGIC = b"wgmapcac"
_HEADER = struct.Struct("!8sHI")  # magic, version, CRC-32 of the rest

log = Log("agent.cache")


@dataclass(frozen=True, slots=True)
class Times:
    """The engine's ``now`` and the wall time (seconds since 1970) of one moment."""

    now: float
    wall: float


@dataclass(frozen=True, slots=True)
class Cached:
    """What a file holds for the engine."""

    peers: tuple[CachedPeer, ...] = ()
    revocation: int | None = None

    def revocation_known(self, saved: int | None) -> int | None:
        """Return up to which revocation an agent is clean that starts with these peers.

        ``saved``: what it knew when it saved its state. The servers tell it the rest.
        """
        if not self.peers:
            return saved
        return min(self.revocation or 0, saved if saved is not None else self.revocation or 0)


class CacheFile:
    """The cache of one agent in its state directory."""

    def __init__(self, directory: Path, owner: bytes, most_s: float) -> None:
        """``owner``: see ``owner_of``; entries older than ``most_s`` are left out."""
        self._path = directory / CACHE_FILE
        self._owner = owner
        self._most_s = most_s

    def load(self, times: Times) -> Cached:
        """Read it; nothing where there is none or it cannot be used, which is told."""
        try:
            fields = decode(_read(self._path), self._owner)
            return self._cached(fields, times)
        except FileNotFoundError:
            return Cached()
        except (OSError, StateError) as error:
            log.warning("the cache is ignored", path=self._path, reason=error)
            return Cached()

    def save(self, cache: SaveCache, times: Times) -> None:
        """Replace it and wait for the disk; raises StateError."""
        try:
            files.replace(self._path, encode(cache, self._owner, times))
        except OSError as error:
            msg = f"{self._path}: {error.strerror}"
            raise StateError(msg) from error

    def remove(self) -> None:
        """Delete it: the cache was switched off."""
        self._path.unlink(missing_ok=True)

    def _cached(self, fields: "Fields", times: Times) -> Cached:
        if fields.saved > times.wall + FUTURE_S:
            raise StateError("it was saved in the future: the clock went back")
        ages = [(max(0.0, times.wall - wall), data) for wall, data in fields.peers]
        young = [(age, data) for age, data in ages if age < self._most_s]
        if len(young) < len(ages):
            log.info("cached peers are too old", peers=len(ages) - len(young), kept=len(young))
        peers = tuple(_peer(times.now - age, data) for age, data in young)
        log.info("cached peers", peers=len(peers))
        return Cached(peers, fields.revocation)


@dataclass(frozen=True, slots=True)
class Fields:
    """The content of a file, checked as far as its own form goes."""

    saved: float
    revocation: int | None
    peers: tuple[tuple[float, bytes], ...]

    @classmethod
    def of(cls, content: Any, owner: bytes) -> Self:
        """Check what was unpacked; raises StateError."""
        if not isinstance(content, dict):
            raise StateError("not a map")
        if content.get("owner") != owner:
            raise StateError("it is another agent's")
        saved, revocation = content.get("saved"), content.get("revocation")
        if not isinstance(saved, float):
            raise StateError("the time of its saving is missing")
        if revocation is not None and not isinstance(revocation, int):
            raise StateError("the number of the last revocation is none")
        return cls(saved, revocation, tuple(_entry(one) for one in content.get("peers", ())))


def owner_of(identity: Identity, control: PublicKey) -> bytes:
    """Say whose cache it is: a cache is of use to one agent in one instance."""
    return bytes(control) + identity.instance.to_bytes(4)


def encode(cache: SaveCache, owner: bytes, times: Times) -> bytes:
    """Write the bytes of the file; what does not fit into MAX_BYTES is left out."""
    peers: list[tuple[float, bytes]] = []
    room = MAX_BYTES
    for peer in sorted(cache.peers, key=lambda one: -one.confirmed):
        data = codec.encode(MapReply(0, peer.records))
        room -= len(data) + 32
        if room < 0:
            log.warning("peers left out of the cache", peers=len(cache.peers) - len(peers))
            break
        peers.append((times.wall - (times.now - peer.confirmed), data))
    content = {"owner": owner, "saved": times.wall, "revocation": cache.revocation, "peers": peers}
    body: bytes = msgpack.packb(content)
    return _HEADER.pack(_MAGIC, VERSION, zlib.crc32(body)) + body


def decode(data: bytes, owner: bytes) -> Fields:
    """Read the bytes of the file; raises StateError, which says why they are of no use."""
    if len(data) < _HEADER.size:
        raise StateError(f"{len(data)} bytes are no cache")
    magic, version, crc = _HEADER.unpack_from(data)
    body = data[_HEADER.size :]
    if magic != _MAGIC:
        raise StateError("it is no cache")
    if version != VERSION:
        raise StateError(f"written by another version (form {version}, this is {VERSION})")
    if zlib.crc32(body) != crc:
        raise StateError("the checksum is wrong")
    try:
        content = msgpack.unpackb(body)
    except (ValueError, msgpack.UnpackException) as error:
        raise StateError(str(error)) from error
    return Fields.of(content, owner)


def _entry(one: Any) -> tuple[float, bytes]:
    if not isinstance(one, list) or [type(part) for part in one] != [float, bytes]:
        raise StateError("an entry is malformed")
    wall, data = one
    return wall, data


def _peer(confirmed: float, data: bytes) -> CachedPeer:
    try:
        reply = codec.decode(data)
    except CodecError as error:
        raise StateError(f"an entry's records: {error}") from error
    keys = (
        {one.key for record in reply.records for one in record.locators}
        if isinstance(reply, MapReply)
        else set()
    )
    key = keys.pop() if len(keys) == 1 else None
    if not isinstance(reply, MapReply) or key is None:
        raise StateError("an entry is not of one peer")
    return CachedPeer(PublicKey(key), reply.records, confirmed)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & 0o077:
            raise StateError(f"mode {mode:04o}: others could have written or read it")
        data = file.read(MAX_BYTES + _HEADER.size + 1024 * 1024)
        if file.read(1):
            raise StateError("it is too long")
        return data
