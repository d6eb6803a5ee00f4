"""UDP sockets that belong to one interface, read until they are empty."""

import asyncio
import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from wgmap.addresses import IPAddress
from wgmap.net.errors import NetworkError

RECEIVE_BUFFER_BYTES = 4 << 20
MAX_DATAGRAM = 4096  # more than any message of ours
SO_RCVBUFFORCE = 33  # asm-generic/socket.h; not limited by net.core.rmem_max
MAX_A_TURN = 64  # datagrams that are read before other work of the loop gets its turn
SocketAddress: TypeAlias = tuple[Any, ...]  # as recvfrom returns it: address as text, port, ...
Handler: TypeAlias = Callable[[bytes, SocketAddress], None]


@dataclass(slots=True)
class UdpCounters:
    """What happened on a socket since it was opened."""

    received: int = 0
    oversized: int = 0  # longer than the limit, not delivered
    sent: int = 0
    send_dropped: int = 0  # the kernel took none more, or knows no way
    receive_errors: int = 0


def open_socket(
    address: IPAddress,
    port: int,
    interface: str | None = None,
    receive_buffer: int = RECEIVE_BUFFER_BYTES,
) -> socket.socket:
    """Open a non-blocking UDP socket; raises NetworkError.

    With ``interface`` it is bound to that (SO_BINDTODEVICE): packets that come in by another one
    do not reach it, whatever their destination. An address alone does not keep them out, because
    the kernel takes packets to any of its addresses on any interface (the weak host model).
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    opened = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if interface is not None:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        _widen(opened, receive_buffer)
        opened.bind((str(address), port))
    except OSError as error:
        opened.close()
        where = f"[{address}]:{port}" + (f" on {interface}" if interface else "")
        raise NetworkError(f"UDP socket {where}", error.errno or errno.EIO) from error
    return opened


def _widen(opened: socket.socket, size: int) -> None:
    try:
        opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, size)
    except PermissionError:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


class UdpEndpoint:
    """Delivers what a socket receives, and sends on it; never blocks, never queues.

    The kernel's buffers are the only queues: what does not fit there is dropped and counted.
    """

    def __init__(
        self,
        opened: socket.socket,
        handler: Handler,
        max_datagram: int = MAX_DATAGRAM,
        max_a_turn: int = MAX_A_TURN,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        """Take over a non-blocking socket; ``handler`` gets each datagram and its source.

        ``after`` is called when what was there is read, or ``max_a_turn`` of it.
        """
        self._socket = opened
        self._handler = handler
        self._max_datagram = max_datagram
        self._max_a_turn = max_a_turn
        self._after = after
        self.counters = UdpCounters()

    def start(self) -> None:
        """Begin to deliver, on the running loop."""
        asyncio.get_running_loop().add_reader(self._socket, self._drain)

    def stop(self) -> None:
        """Cease to deliver; the socket stays open and keeps what comes in."""
        asyncio.get_running_loop().remove_reader(self._socket)

    def close(self) -> None:
        """Cease and close the socket."""
        self.stop()
        self._socket.close()

    def send(self, data: bytes, destination: SocketAddress) -> bool:
        """Send at once or drop; returns whether the kernel took it."""
        try:
            self._socket.sendto(data, destination)
        except OSError:
            self.counters.send_dropped += 1
            return False
        self.counters.sent += 1
        return True

    def _drain(self) -> None:
        self._read_all()
        self._after()

    def _read_all(self) -> None:
        receive, most = self._socket.recvfrom, self._max_datagram
        handle, counters = self._handler, self.counters
        for _ in range(self._max_a_turn):
            try:
                data, source = receive(most + 1)
            except BlockingIOError:
                return
            except OSError:  # an error that was pending on the socket; it is taken by this
                counters.receive_errors += 1
                continue
            if len(data) > most:
                counters.oversized += 1
                continue
            counters.received += 1
            handle(data, source)
