"""Captured packets go on their way again, through raw sockets.

Never through the TUN: the kernel would take what it reads there as received from outside, drop
IPv4 with a local source as martian, and forwarded packets by strict rp_filter.
"""

import errno
import socket
from dataclasses import dataclass, field
from typing import Self

from wgmap_agent.runner import icmp

SEND_BUFFER = 4 << 20  # bytes; a destination has at most 100 packets in hand
_SO_SNDBUFFORCE = 32


@dataclass(slots=True)
class Injected:
    """What became of a batch of packets."""

    sent: int = 0
    too_big: list[bytes] = field(default_factory=list)  # over the MTU of the way out
    failed: dict[str, int] = field(default_factory=dict)  # name of the errno -> packets


class Injector:
    """Sends whole IP packets as they are, of both families, from any source address.

    With ``device`` they leave through this device only. So a packet whose route is missing,
    or has gone again, is dropped there rather than routed back into the TUN for ever.
    """

    def __init__(self, device: str | None = None) -> None:
        """Open the sockets; needs CAP_NET_RAW. Raises OSError (no such device)."""
        self._v4 = _raw_socket(socket.AF_INET, device)
        self._v6 = _raw_socket(socket.AF_INET6, device)

    def send(self, packets: tuple[bytes, ...]) -> Injected:
        """Send packets in their order; never blocks and never raises OSError."""
        result = Injected()
        for packet in packets:
            try:
                self._send(packet)
            except OSError as error:
                _count(result, packet, error)
            else:
                result.sent += 1
        return result

    def close(self) -> None:
        """Close the sockets."""
        self._v4.close()
        self._v6.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, packet: bytes) -> None:
        about = icmp.header(packet)
        if about is None:
            raise OSError(errno.EINVAL, "not an IP packet")
        if about.destination.version == 4:
            self._v4.sendto(packet, (str(about.destination), 0))
        else:
            self._v6.sendto(packet, (str(about.destination), 0, 0, 0))


def _raw_socket(family: socket.AddressFamily, device: str | None) -> socket.socket:
    raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
    try:
        raw.setblocking(False)
        raw.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, SEND_BUFFER)
        if device is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode() + b"\0")
    except OSError:
        raw.close()
        raise
    return raw


def _count(result: Injected, packet: bytes, error: OSError) -> None:
    if error.errno == errno.EMSGSIZE:
        result.too_big.append(packet)
        return
    name = errno.errorcode.get(error.errno or 0, str(error.errno))
    result.failed[name] = result.failed.get(name, 0) + 1
