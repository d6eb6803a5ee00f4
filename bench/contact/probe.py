"""One echo request from inside a namespace, and when its reply came."""

import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from wgmap.addresses import IPAddress
from wgmap.clock import now
from wgmap_chaos.flow import socket_in

WAIT_S = 5.0
_HEADER = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence (RFC 792, RFC 4443)
_REQUEST = {4: 8, 6: 128}
_REPLY = {4: 0, 6: 129}
_PAYLOAD = b"wgmap first contact bench..........................."


@dataclass(frozen=True, slots=True)
class Reply:
    """Seconds of ``wgmap.clock``; ``replied`` is None where nothing came in time."""

    sent: float
    replied: float | None

    @property
    def took_ms(self) -> float | None:
        """Return how long it took, as the process that asked sees it."""
        return None if self.replied is None else (self.replied - self.sent) * 1e3


class Prober:
    """Sends from one namespace; what comes late is not taken for an answer to the next one."""

    def __init__(self, netns: str) -> None:
        self._sockets = {
            4: _raw(netns, socket.AF_INET, socket.IPPROTO_ICMP),
            6: _raw(netns, socket.AF_INET6, socket.IPPROTO_ICMPV6),
        }
        self._identifier = os.getpid() & 0xFFFF
        self._sequence = 0

    def close(self) -> None:
        """Close the sockets."""
        for one in self._sockets.values():
            one.close()

    def ask(self, destination: IPAddress, wait_s: float = WAIT_S) -> Reply:
        """Send one request and wait for its reply."""
        version = destination.version
        self._sequence = (self._sequence + 1) & 0xFFFF
        opened = self._sockets[version]
        _drain(opened)
        request = self._request(version)
        sent = now()
        opened.sendto(request, (str(destination), 0))
        while (left := sent + wait_s - now()) > 0:
            if not select.select([opened], [], [], left)[0]:
                break
            came = now()
            if any(self._is_reply(version, packet) for packet in _drain(opened)):
                return Reply(sent, came)
        return Reply(sent, None)

    def _request(self, version: int) -> bytes:
        fields = (_REQUEST[version], 0, 0, self._identifier, self._sequence)
        request = _HEADER.pack(*fields) + _PAYLOAD
        if version == 6:
            return request  # the kernel sums ICMPv6
        fields = (*fields[:2], _checksum(request), *fields[3:])
        return _HEADER.pack(*fields) + _PAYLOAD

    def _is_reply(self, version: int, packet: bytes) -> bool:
        start = (packet[0] & 0xF) * 4 if version == 4 else 0
        if len(packet) < start + _HEADER.size:
            return False
        kind, _, _, identifier, sequence = _HEADER.unpack_from(packet, start)
        return (kind, identifier, sequence) == (
            _REPLY[version],
            self._identifier,
            self._sequence,
        )


@contextmanager
def prober(netns: str) -> Iterator[Prober]:
    """Open a prober and close it."""
    opened = Prober(netns)
    try:
        yield opened
    finally:
        opened.close()


def _raw(netns: str, family: socket.AddressFamily, protocol: int) -> socket.socket:
    opened = socket_in(netns, family, socket.SOCK_RAW, protocol)
    if family == socket.AF_INET6:
        # Only what is asked for: neighbour discovery comes on such a socket as well.
        keep = bytearray(b"\xff" * 32)
        keep[_REPLY[6] // 32 * 4 + _REPLY[6] % 32 // 8] &= ~(1 << _REPLY[6] % 8) & 0xFF
        opened.setsockopt(socket.IPPROTO_ICMPV6, 1, bytes(keep))
    return opened


def _drain(opened: socket.socket) -> list[bytes]:
    packets: list[bytes] = []
    while True:
        try:
            packets.append(opened.recv(2048))
        except BlockingIOError:
            return packets
        except OSError:
            continue  # an ICMP error that was pending


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
