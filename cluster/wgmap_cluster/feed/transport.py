"""The two ends of the feed: the replica listens, the responder connects.

A Connection keeps the order of what it is given. Its write buffer is bounded, and says what
happens when it is full: ``send`` closes the connection (a stream with a gap would be worse than
none; the other end attaches again and gets what it misses), ``offer`` leaves the message out.
Who has much to say paces itself with ``drain``.
"""

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from wgmap.clock import now
from wgmap_cluster.feed.codec import FeedError, decode, encode
from wgmap_cluster.feed.messages import MAX_PACKET, FeedMessage

MAX_BUFFERED = 8 << 20  # bytes that wait for the other end
LOW_WATER = 256 * 1024  # drain() returns below this
# Of messages received in a row before others have their turn: a packet full of rows takes its
# reader several milliseconds, so it is time that counts and not how many there were.
TURN_S = 0.001
_SOCKET_BUFFER = 1 << 20
_MAX_UNIX_PATH = 107  # sun_path, with its terminating zero
_GONE = (ConnectionError, BrokenPipeError)


class FeedClosedError(FeedError):
    """The other end is gone, or this end was closed."""


class Connection:
    """One end of a feed; belongs to the loop that made it."""

    def __init__(self, sock: socket.socket) -> None:
        """Take over a connected SOCK_SEQPACKET socket."""
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._buffer = bytearray(MAX_PACKET + 1)
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._turn_ends: float | None = None  # None: the next message begins one
        self._closed: str | None = None
        self._readable: asyncio.Future[None] | None = None
        self._drained = asyncio.Event()
        self._drained.set()

    @property
    def closed(self) -> str | None:
        """Why this end is closed; None while it is open."""
        return self._closed

    @property
    def buffered(self) -> int:
        """Bytes that wait for the other end."""
        return self._waiting_bytes

    # ------------------------------------------------------------------------------ writing

    def send(self, message: FeedMessage) -> None:
        """Queue a message; raises FeedClosedError (also when the buffer is full), FeedError."""
        for packet in encode(message):
            self._require_open()
            self._queue(packet)
            if self._waiting_bytes > MAX_BUFFERED:
                self._close("the other end does not read")
                self._require_open()

    def offer(self, message: FeedMessage) -> bool:
        """Queue a message that may be left out; False if it was (buffer full, closed)."""
        if self._closed or self._waiting_bytes > LOW_WATER:
            return False
        self.send(message)
        return self._closed is None

    async def drain(self) -> None:
        """Wait until little waits for the other end; raises FeedClosedError."""
        await self._drained.wait()
        self._require_open()

    def _queue(self, packet: bytes) -> None:
        if not self._waiting and self._write(packet):
            return
        if self._closed:
            return
        if not self._waiting:
            self._loop.add_writer(self._sock, self._flush)
        self._waiting.append(packet)
        self._waiting_bytes += len(packet)
        if self._waiting_bytes > LOW_WATER:
            self._drained.clear()

    def _flush(self) -> None:
        while self._waiting and self._write(self._waiting[0]):
            self._waiting_bytes -= len(self._waiting.popleft())
        if self._closed:
            return
        if not self._waiting:
            self._loop.remove_writer(self._sock)
        if self._waiting_bytes <= LOW_WATER:
            self._drained.set()

    def _write(self, packet: bytes) -> bool:
        try:
            self._sock.send(packet)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._close(f"the other end is gone: {error.strerror}")
            return False
        return True

    # ------------------------------------------------------------------------------ reading

    async def receive(self) -> FeedMessage:
        """Wait for a message; one task at a time.

        Raises FeedClosedError at the end (a reset counts as one), and FeedError for a packet
        that is none: the connection is closed then.
        """
        if self._turn_ends is not None and now() >= self._turn_ends:
            self._turn_ends = None
            await asyncio.sleep(0)
        while True:
            self._require_open()
            message = self._receive_now()
            if message is not None:
                if self._turn_ends is None:
                    self._turn_ends = now() + TURN_S
                return message
            self._turn_ends = None
            await self._wait_readable()

    def _receive_now(self) -> FeedMessage | None:
        try:
            size = self._sock.recv_into(self._buffer)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            size = 0
            self._close(f"the other end is gone: {error.strerror}")
        if size == 0:
            self._close("the other end closed the feed")
            self._require_open()
        try:
            return decode(memoryview(self._buffer)[:size])
        except FeedError as error:
            self._close(str(error))
            raise

    async def _wait_readable(self) -> None:
        self._readable = self._loop.create_future()
        self._loop.add_reader(self._sock, self._wake)
        try:
            await self._readable
        finally:
            self._readable = None
            if not self._closed:
                self._loop.remove_reader(self._sock)

    def _wake(self) -> None:
        if self._readable and not self._readable.done():
            self._readable.set_result(None)

    # ------------------------------------------------------------------------------ closing

    def close(self) -> None:
        """Close this end; what still waits is dropped. Idempotent."""
        self._close("closed here")

    def _close(self, reason: str) -> None:
        if self._closed:
            return
        self._closed = reason
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        self._waiting.clear()
        self._waiting_bytes = 0
        self._drained.set()
        self._wake()

    def _require_open(self) -> None:
        if self._closed:
            raise FeedClosedError(self._closed)


class FeedServer:
    """The replica's end: a listening socket in the state directory, for its owner only."""

    def __init__(self, path: Path) -> None:
        """Listen on ``path``; what an earlier replica left there is replaced. Raises OSError.

        The state directory's lock makes sure that no other replica is alive.
        """
        self._path = path
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self._sock.setblocking(False)
        path.unlink(missing_ok=True)
        with _short(path) as name:
            self._sock.bind(name)
        path.chmod(0o600)
        self._sock.listen(8)

    async def accept(self) -> Connection:
        """Wait for a responder."""
        sock, _ = await asyncio.get_running_loop().sock_accept(self._sock)
        return Connection(sock)

    def close(self) -> None:
        """Listen no more and remove the socket's name; connections stay."""
        self._sock.close()
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def connect(path: Path, first_s: float = 0.02, most_s: float = 0.5) -> Connection:
    """Connect to a replica; while there is none, try again after ``first_s``, doubling."""
    pause = first_s
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            sock.setblocking(False)
            with _short(path) as name:
                sock.connect(name)
            return Connection(sock)
        except OSError:  # absent, refused, or its queue full: all pass
            sock.close()
        except BaseException:
            sock.close()
            raise
        await asyncio.sleep(pause)
        pause = min(2 * pause, most_s)


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """Name a socket file whose path may be longer than a socket address holds."""
    if len(os.fsencode(path)) <= _MAX_UNIX_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
