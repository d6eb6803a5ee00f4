"""Connections between servers: one for each pair, dialled by the one whose name sorts higher.

In place of the library's transport, which listens on every address, has no time-out while it
connects, stops accepting for ever after one error, keeps reading replaced sockets and serves
commands to anyone. Here the port is bound to the mesh address and device, a connection belongs to a
configured server only (its address must be that server's), and nothing but frames of the log comes
over it. Frame: length u32, little-endian, then the bytes. The first frame each way is a hello:

    ["wgmap-raft", [oldest, newest version of the messages], own name, other's name, store, ...]

Two servers talk where these ranges meet, so that servers can be upgraded one by one: whoever adds
or changes a message raises NEWEST, and sends it only to those who read it; OLDEST follows when no
server that is upgraded from is older. What a later version adds behind the store is passed by.

Bounded: a server that does not read loses its connection at four windows of backlog; at most 16
connections wait for their hello, more are closed at once.
"""

import asyncio
import contextlib
import ipaddress
import logging
import socket
import struct
from typing import Protocol

import msgpack

from wgmap import accepting
from wgmap.addresses import Endpoint
from wgmap_cluster.raft.codec import MAX_FRAME_BYTES
from wgmap_cluster.raft.interface import LogError, Member
from wgmap_cluster.raft.library import now
from wgmap_cluster.raft.settings import Settings

log = logging.getLogger(__name__)

_LENGTH = struct.Struct("<I")
_HELLO = "wgmap-raft"
OLDEST, NEWEST = 1, 1
_MAX_UNKNOWN = 16
_HELLO_BYTES = 1024
_ADDRESS_WAIT_S, _ADDRESS_RETRY_S = 5.0, 0.1


class Events(Protocol):
    """What the transport tells, and asks."""

    def on_frame(self, name: str, frame: bytes) -> None:
        """Take a frame from a server."""
        ...

    def on_change(self, name: str) -> None:
        """Take note that a connection came or went."""
        ...

    def admit(self, name: str, store: bytes) -> bool:
        """Tell whether a server with this disk may connect."""
        ...

    def store(self) -> bytes:
        """Return the identity of the own disk."""
        ...


class _Connection(asyncio.Protocol):
    """One TCP connection; ``peer`` is None until its hello was accepted."""

    def __init__(self, owner: "MeshTransport", dialled: str | None) -> None:
        self._owner, self.dialled = owner, dialled
        self.peer: str | None = None
        self.closed = asyncio.Event()
        self.read_at = now()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._out: list[bytes] = []
        self._out_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=1 << 30)  # this class bounds it itself
        self._owner.on_made(self)

    def remote(self) -> str:
        """Return the other end's address, without port."""
        name = None if self._transport is None else self._transport.get_extra_info("peername")
        return "" if name is None else str(name[0])

    def data_received(self, data: bytes) -> None:
        self.read_at = now()
        self._buffer += data
        limit = MAX_FRAME_BYTES if self.peer is not None else _HELLO_BYTES
        start = 0
        while len(self._buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, start)
            if length > limit:
                self.abort(f"a frame of {length} bytes")
                return
            end = start + _LENGTH.size + length
            if end > len(self._buffer):
                break
            self._owner.on_frame(self, bytes(self._buffer[start + _LENGTH.size : end]))
            start = end
        del self._buffer[:start]

    def send(self, frame: bytes) -> None:
        """Collect a frame for the next flush."""
        self._out += (_LENGTH.pack(len(frame)), frame)
        self._out_bytes += len(frame)

    def flush(self) -> None:
        """Hand what was collected to the system."""
        if self._out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._out))
        self._out.clear()
        self._out_bytes = 0

    def backlog(self) -> int:
        """Return the bytes not yet taken by the system."""
        waiting = 0 if self._transport is None else self._transport.get_write_buffer_size()
        return waiting + self._out_bytes

    def abort(self, reason: str) -> None:
        """Close at once, dropping what was not sent; nothing is read from it any more."""
        log.info("connection with %s closed: %s", self.peer or self.remote(), reason)
        self._owner.on_lost(self)
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._owner.on_lost(self)
        self.closed.set()


class MeshTransport:
    """The connections of one server; all methods belong to its loop."""

    def __init__(
        self,
        own: Member,
        settings: Settings,
        bind_device: str | None,
        events: "Events",
    ) -> None:
        self._own, self._settings, self._device = own, settings, bind_device
        self._events = events
        self._endpoint = parse_address(own)
        self._members: dict[str, Member] = {}
        self._connections: dict[str, _Connection] = {}
        self._unknown: set[_Connection] = set()
        self._dialling: dict[str, asyncio.Task[None]] = {}
        self._server: asyncio.Server | None = None
        self._running = False
        self._device_index: int | None = None
        self._relistening: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen and begin to dial; raises LogError where the address cannot be bound."""
        await self._listen()
        self._running = True
        self._dial_missing()

    async def _listen(self) -> None:
        listener = await self._await_listener()
        self._device_index = self._index()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self, None), sock=listener, backlog=accepting.TURN
        )
        accepting.ready(self._server.sockets)

    async def _await_listener(self) -> socket.socket:
        """Wait a moment for the address: after a boot it may come up after this process."""
        end = now() + _ADDRESS_WAIT_S
        while True:
            try:
                return self._listener()
            except LogError:
                if now() >= end:
                    raise
            await asyncio.sleep(_ADDRESS_RETRY_S)

    def _index(self) -> int | None:
        """Return the number of the device now; None where it is gone, or none is asked for."""
        try:
            return None if self._device is None else socket.if_nametoindex(self._device)
        except OSError:
            return None

    def _follow_device(self) -> None:
        """Listen again on a device that was made anew: the old sockets are bound to the old one."""
        index = self._index()
        if index in (None, self._device_index) or self._relistening is not None:
            return
        log.warning("%s was made anew; listening again", self._device)
        if self._server is not None:
            self._server.close()
        for connection in [*self._connections.values(), *self._unknown]:
            connection.abort("the device is gone")
        self._relistening = asyncio.ensure_future(self._relisten())

    async def _relisten(self) -> None:
        try:
            await self._listen()
        except LogError as error:
            log.warning("%s; trying again", error)
        self._relistening = None

    def _listener(self) -> socket.socket:
        sock = self._socket()
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((str(self._endpoint.address), self._endpoint.port))
            sock.listen(_MAX_UNKNOWN)
        except OSError as error:
            sock.close()
            msg = f"cannot listen on {self._own.address}: {error.strerror}"
            raise LogError(msg) from error
        return sock

    def _socket(self) -> socket.socket:
        family = socket.AF_INET if self._endpoint.address.version == 4 else socket.AF_INET6
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if self._device is not None:
                device = self._device.encode() + b"\0"
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
        except OSError as error:
            sock.close()
            msg = f"cannot bind to {self._device}: {error.strerror}"
            raise LogError(msg) from error
        return sock

    async def stop(self) -> None:
        """Close everything."""
        self._running = False
        tasks = [*self._dialling.values()]
        tasks += [] if self._relistening is None else [self._relistening]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._dialling.clear()
        connections = [*self._connections.values(), *self._unknown]
        for connection in connections:
            connection.abort("stopping")
        if self._server is not None:
            self._server.close()
        await asyncio.gather(*(connection.closed.wait() for connection in connections))

    # Wire.
    def send(self, name: str, frame: bytes) -> None:
        """See Wire."""
        connection = self._connections.get(name)
        if connection is None:
            return
        connection.send(frame)
        if connection.backlog() > 4 * self._settings.window_bytes + MAX_FRAME_BYTES:
            connection.abort("it does not read")

    def flush(self) -> None:
        """See Wire."""
        for connection in self._connections.values():
            connection.flush()

    def connected(self, name: str) -> bool:
        """See Wire."""
        return name in self._connections

    def drop(self, name: str, reason: str) -> None:
        """See Wire; it is dialled again after a while."""
        connection = self._connections.get(name)
        if connection is not None:
            connection.abort(reason)

    def backlog(self, name: str) -> int:
        """See Wire."""
        connection = self._connections.get(name)
        return 0 if connection is None else connection.backlog()

    def set_members(self, members: tuple[Member, ...]) -> None:
        """See Wire."""
        before = self._members
        self._members = {m.name: m for m in members if m.name != self._own.name}
        for name, connection in list(self._connections.items()):
            if self._members.get(name) != before.get(name):
                connection.abort("no longer a server")
        for name in [name for name in self._dialling if self._members.get(name) != before[name]]:
            self._dialling.pop(name).cancel()
        self._dial_missing()

    def check(self) -> None:
        """Close what has been silent too long; to be called a few times a second."""
        self._follow_device()
        time = now()
        for connection in list(self._connections.values()):
            if time - connection.read_at > self._settings.connection_timeout_s:
                connection.abort("silent")
        for connection in list(self._unknown):
            if time - connection.read_at > self._settings.connect_timeout_s:
                connection.abort("no hello")

    # Dialling.
    def _dial_missing(self) -> None:
        for name, member in self._members.items() if self._running else ():
            if self._own.name > name and name not in self._dialling:
                self._dialling[name] = asyncio.ensure_future(self._dial(member))

    async def _dial(self, member: Member) -> None:
        while self._running:
            # A LogError: the device is gone for now.
            with contextlib.suppress(OSError, TimeoutError, LogError):
                async with asyncio.timeout(self._settings.connect_timeout_s):
                    connection = await self._connect(member)
                await connection.closed.wait()
            await asyncio.sleep(self._settings.retry_s)

    async def _connect(self, member: Member) -> _Connection:
        loop, endpoint = asyncio.get_running_loop(), parse_address(member)
        sock = self._socket()
        try:
            sock.bind((str(self._endpoint.address), 0))  # the other end knows us by it
            await loop.sock_connect(sock, (str(endpoint.address), endpoint.port))
            _, connection = await loop.create_connection(
                lambda: _Connection(self, member.name), sock=sock
            )
        except BaseException:
            sock.close()
            raise
        connection.send(self._hello(member.name))
        connection.flush()
        return connection

    def _hello(self, to: str) -> bytes:
        head = [_HELLO, [OLDEST, NEWEST], self._own.name, to]
        return bytes(msgpack.packb([*head, self._events.store()]))

    # From connections.
    def on_made(self, connection: _Connection) -> None:
        """Await the hello of a new connection."""
        self._unknown.add(connection)
        if len(self._unknown) > _MAX_UNKNOWN:
            connection.abort("too many unknown connections")

    def on_lost(self, connection: _Connection) -> None:
        """Forget a connection that is gone, or of no use any more."""
        self._unknown.discard(connection)
        name, connection.peer = connection.peer, None
        if name is not None and self._connections.get(name) is connection:
            del self._connections[name]
            self._events.on_change(name)

    def on_frame(self, connection: _Connection, frame: bytes) -> None:
        """Take a whole frame."""
        if connection.peer is not None:
            self._events.on_frame(connection.peer, frame)
        elif connection in self._unknown:
            self._on_hello(connection, frame)

    def _on_hello(self, connection: _Connection, frame: bytes) -> None:
        name = self._greeted(connection, frame)
        if name is None:
            connection.abort("not a configured server")
            return
        self._unknown.discard(connection)
        replaced = self._connections.get(name)
        if replaced is not None:
            replaced.abort("replaced")  # a stale socket is never read again
        connection.peer = name
        self._connections[name] = connection
        if connection.dialled is None:
            connection.send(self._hello(name))
            connection.flush()
        self._events.on_change(name)

    def _greeted(self, connection: _Connection, frame: bytes) -> str | None:
        """Return who greets, None where it is none of the servers, or not from its address."""
        try:
            word, versions, name, to, store, *_ = msgpack.unpackb(frame)
        except (ValueError, TypeError, msgpack.UnpackException):
            return None
        member = self._members.get(name) if isinstance(name, str) else None
        if member is None or (word, to) != (_HELLO, self._own.name):
            return None
        if not _meets(versions):
            log.error("%s speaks versions %r; this server %d to %d", name, versions, OLDEST, NEWEST)
            return None
        remote = ipaddress.ip_address(connection.remote().partition("%")[0])
        expected = (parse_address(member).address, connection.dialled or name)
        admitted = (remote, name) == expected and isinstance(store, bytes)
        return name if admitted and self._events.admit(name, store) else None


def _meets(versions: object) -> bool:
    """Tell whether there is a version that both ends read."""
    match versions:
        case [int(oldest), int(newest)]:
            return oldest <= NEWEST and newest >= OLDEST
        case _:
            return False


class NoTransport:
    """For a single server without a mesh: no port, no connection."""

    async def start(self) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Do nothing."""

    def check(self) -> None:
        """Do nothing."""

    def send(self, name: str, frame: bytes) -> None:
        """See Wire."""

    def flush(self) -> None:
        """See Wire."""

    def connected(self, name: str) -> bool:  # noqa: ARG002
        """See Wire."""
        return False

    def drop(self, name: str, reason: str) -> None:
        """See Wire."""

    def backlog(self, name: str) -> int:  # noqa: ARG002
        """See Wire."""
        return 0

    def set_members(self, members: tuple[Member, ...]) -> None:
        """See Wire."""


def parse_address(member: Member) -> Endpoint:
    """Return a member's address; IP literals only. Raises LogError."""
    try:
        return Endpoint.parse(member.address)
    except ValueError as error:
        msg = f"{member.name}: {member.address!r} is not ADDRESS:PORT ({error})"
        raise LogError(msg) from error
