r"""Hears the handshake messages that come to the data port, beside WireGuard itself.

WireGuard drops an initiation whose sender it does not know yet without a word, and when a
handshake is complete only a reading of the whole device tells. The engine wants to know both at
once. Packet sockets see them, and a filter in the kernel lets nothing else through:

    UDP to the data port, 8 + 148 bytes, that begin with 01 00 00 00: an initiation
    UDP to the data port, 8 + 92 bytes, that begin with 02 00 00 00: a response
    (message type and reserved zeros: WireGuard's protocol paper, sections 5.4.2 and 5.4.3)

What comes over the loopback device is an initiation that we deliver again ourselves: heard a second
time it would count as a new one, and be kept for whoever is at that endpoint next.

Anybody can send such datagrams, so no more than RATE a second are read; what does not fit into
the sockets' buffers meanwhile is dropped by the kernel: then things take longer.
"""

import asyncio
import contextlib
import ctypes
import socket
import struct
from collections.abc import Callable
from typing import NamedTuple, Self

from wgmap import clock
from wgmap.addresses import Endpoint
from wgmap_agent.runner import icmp, walltime

RATE = 1000  # messages a second
TURN_S = 0.05
# A response is told of so much later: no packet waits for what follows (the first ones have left),
# and the reply to them has the processor first.
RESPONSE_S = 0.002
RECEIVE_BUFFER = 1 << 16  # bytes: some 80 messages
_ETH_P_IP, _ETH_P_IPV6 = 0x0800, 0x86DD
_SO_ATTACH_FILTER = 26
_SO_TIMESTAMPNS = 35
_SOL_PACKET, _PACKET_IGNORE_OUTGOING = 263, 23
_PACKET_HOST = 0
_ARPHRD_LOOPBACK = 772
_SEEN_BYTES = 60 + 8 + 148  # an initiation with every option of IPv4
_TIMESPEC = struct.Struct("@qq")
_INITIATION_LENGTH, _INITIATION = 8 + 148, 0x01000000
_RESPONSE_LENGTH, _RESPONSE = 8 + 92, 0x02000000

# Classic BPF: (code, jump if true, jump if false, operand); offsets are from the IP header.
_LOAD_BYTE, _LOAD_HALF, _LOAD_WORD = 0x30, 0x28, 0x20
_INDEXED_HALF, _INDEXED_WORD, _HEADER_LENGTH = 0x48, 0x40, 0xB1
_IF_EQUAL, _IF_SET, _RETURN = 0x15, 0x45, 0x06
_Instruction = tuple[int, int, int, int]


class Handshake(NamedTuple):
    """A message that came: which, from where, and when by ``wgmap.clock`` (seconds)."""

    is_response: bool  # otherwise an initiation
    source: Endpoint
    at: float
    packet: bytes  # with its IP header


class Overheard:
    """Two packet sockets, one for each IP version; an event for each message."""

    def __init__(self, port: int) -> None:
        """Open them; needs CAP_NET_RAW. Raises OSError."""
        self._sockets = [_open(_ETH_P_IP, _filter_v4(port)), _open(_ETH_P_IPV6, _filter_v6(port))]
        self._left = 0.0
        self._turn: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # that listens
        self._event: Callable[[Handshake], None] = lambda _: None

    def start(self, event: Callable[[Handshake], None]) -> None:
        """Call ``event`` on the running loop for each, until closed."""
        self._event = event
        self._loop = asyncio.get_running_loop()
        self._listen(self._loop)

    def close(self) -> None:
        """Stop."""
        if self._turn is not None:
            self._turn.cancel()
        if self._loop is not None:
            # A loop that still has a descriptor never hears of the next socket of that number.
            self._deafen(self._loop)
        for one in self._sockets:
            one.close()
        self._sockets.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        self._left = RATE * TURN_S
        for one in self._sockets:
            loop.add_reader(one, self._readable, one, loop)

    def _deafen(self, loop: asyncio.AbstractEventLoop) -> None:
        for one in self._sockets:
            loop.remove_reader(one)

    def _readable(self, one: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        """Read one; the next turn begins TURN_S later."""
        if self._turn is None:
            self._turn = loop.call_later(TURN_S, self._next_turn, loop)
        handshake = _read(one)
        if handshake is not None and handshake.is_response:
            loop.call_later(RESPONSE_S, self._tell, handshake)
        elif handshake is not None:
            self._event(handshake)
        self._left -= 1
        if self._left <= 0:
            self._deafen(loop)

    def _tell(self, handshake: Handshake) -> None:
        if self._sockets:
            self._event(handshake)

    def _next_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._turn = None
        self._listen(loop)


def _read(one: socket.socket) -> Handshake | None:
    try:
        packet, ancillary, _, address = one.recvmsg(_SEEN_BYTES, 64)
    except OSError:  # nothing left, or an interface went down
        return None
    about = icmp.header(packet)
    if about is None or address[2] != _PACKET_HOST or address[3] == _ARPHRD_LOOPBACK:
        return None
    udp = (packet[0] & 0xF) * 4 if about.source.version == 4 else 40
    port = int.from_bytes(packet[udp : udp + 2], "big")
    is_response = packet[udp + 8 : udp + 9] == b"\x02"
    source = Endpoint(about.source, port)
    return Handshake(is_response, source, clock.now() - _age(ancillary), packet)


def _age(ancillary: list[tuple[int, int, bytes]]) -> float:
    """Return how long ago a packet came (seconds), by the kernel's stamp."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(data) == _TIMESPEC.size:
            seconds, nanoseconds = map(float, _TIMESPEC.unpack(data))
            return max(0.0, walltime.now() - seconds - nanoseconds * 1e-9)
    return 0.0


def _open(protocol: int, instructions: list[_Instruction]) -> socket.socket:
    program = b"".join(struct.pack("@HBBI", *one) for one in instructions)
    buffer = ctypes.create_string_buffer(program)
    fprog = struct.pack("@HP", len(instructions), ctypes.addressof(buffer))
    one = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(protocol))
    try:
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
        one.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        one.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        _drain(one)  # what came before there was a filter
    except OSError:
        one.close()
        raise
    return one


def _drain(one: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            one.recv(1)


def _filter_v4(port: int) -> list[_Instruction]:
    return [
        (_LOAD_BYTE, 0, 0, 9),
        (_IF_EQUAL, 0, 13, socket.IPPROTO_UDP),
        (_LOAD_HALF, 0, 0, 6),
        (_IF_SET, 11, 0, 0x1FFF),  # a later fragment
        (_HEADER_LENGTH, 0, 0, 0),
        (_INDEXED_HALF, 0, 0, 2),
        (_IF_EQUAL, 0, 8, port),
        (_INDEXED_HALF, 0, 0, 4),
        *_message((_INDEXED_WORD, 0, 0, 8)),
    ]


def _filter_v6(port: int) -> list[_Instruction]:
    """As for IPv4; WireGuard sends no extension headers."""
    return [
        (_LOAD_BYTE, 0, 0, 6),
        (_IF_EQUAL, 0, 10, socket.IPPROTO_UDP),
        (_LOAD_HALF, 0, 0, 42),
        (_IF_EQUAL, 0, 8, port),
        (_LOAD_HALF, 0, 0, 44),
        *_message((_LOAD_WORD, 0, 0, 48)),
    ]


def _message(load_type: _Instruction) -> list[_Instruction]:
    """Let through what has the length (which is loaded) and the type of a handshake message."""
    return [
        (_IF_EQUAL, 0, 2, _INITIATION_LENGTH),
        load_type,
        (_IF_EQUAL, 3, 4, _INITIATION),
        (_IF_EQUAL, 0, 3, _RESPONSE_LENGTH),
        load_type,
        (_IF_EQUAL, 0, 1, _RESPONSE),
        (_RETURN, 0, 0, _SEEN_BYTES),
        (_RETURN, 0, 0, 0),
    ]
