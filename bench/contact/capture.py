"""Packets with the kernel's time stamps, from several interfaces in several namespaces.

What costs time between two processes is seen here without asking either of them.
"""

import socket
import struct
import time
from dataclasses import dataclass
from typing import Self

from wgmap.clock import now
from wgmap_chaos.flow import socket_in

LISP_PORT = 4342
OUTGOING = 4  # sll_pkttype (packet(7))
_ETH_P_ALL = 3
_SO_TIMESTAMPNS = 35
_SO_RCVBUFFORCE = 33
_RECEIVE_BYTES = 4 << 20
_SNAP_BYTES = 256
_TIMESPEC = struct.Struct("=qq")
_IPV4, _IPV6 = 0x0800, 0x86DD
_UDP = 17


@dataclass(frozen=True, slots=True)
class Seen:
    """A packet that passed an interface; ``at`` in seconds of ``wgmap.clock``."""

    at: float
    tap: str
    outgoing: bool
    kind: str  # "lisp 1", "wg 1", "icmp", "other": the protocol and the type of its message
    payload: bytes


@dataclass(frozen=True, slots=True)
class Tap:
    """Where to listen: a name for the report, the namespace, the interface."""

    name: str
    netns: str
    interface: str


class Capture:
    """Listens on all taps at once; ``data_ports`` are those of WireGuard's data tunnels."""

    def __init__(self, taps: list[Tap], data_ports: set[int]) -> None:
        self._ports = data_ports
        self._sockets = [(tap.name, _open(tap)) for tap in taps]

    def take(self) -> list[Seen]:
        """Return what passed since the last time, in order."""
        # The stamps are wall time: both clocks are read at one moment to relate them.
        offset = now() - time.clock_gettime(time.CLOCK_REALTIME)
        found = [one for name, opened in self._sockets for one in self._drain(name, opened, offset)]
        return sorted(found, key=lambda one: one.at)

    def close(self) -> None:
        """Close the sockets."""
        for _, opened in self._sockets:
            opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _drain(self, name: str, opened: socket.socket, offset: float) -> list[Seen]:
        found: list[Seen] = []
        while True:
            try:
                packet, ancillary, _, address = opened.recvmsg(_SNAP_BYTES, 64)
            except BlockingIOError:
                return found
            seconds, nanoseconds = _TIMESPEC.unpack(ancillary[0][2][:16])
            at = seconds + nanoseconds / 1e9 + offset
            kind, payload = self._read(packet, address[1])
            found.append(Seen(at, name, address[2] == OUTGOING, kind, payload))

    def _read(self, packet: bytes, protocol: int) -> tuple[str, bytes]:
        transport = _transport(packet, protocol)
        if transport is None:
            return "other", b""
        kind, body = transport
        if kind != _UDP or len(body) < 9:
            return ("icmp", body) if kind in (1, 58) else ("other", b"")
        source, target = struct.unpack_from("!HH", body)
        if LISP_PORT in (source, target):
            return f"lisp {body[8] >> 4}", body[8:]
        if self._ports & {source, target}:
            return f"wg {body[8]}", body[8:]
        return "other", b""


def _transport(packet: bytes, protocol: int) -> tuple[int, bytes] | None:
    """Return the protocol above IP and what it carries."""
    if protocol == _IPV4 and len(packet) >= 20:
        return packet[9], packet[(packet[0] & 0xF) * 4 :]
    if protocol == _IPV6 and len(packet) >= 40:
        return packet[6], packet[40:]
    return None


def _open(tap: Tap) -> socket.socket:
    opened = socket_in(tap.netns, socket.AF_PACKET, socket.SOCK_DGRAM)
    opened.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BYTES)
    opened.bind((tap.interface, _ETH_P_ALL))
    return opened
