"""Captured packets go on their way again, and answers to their senders leave.

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
_ETH_P = {4: 0x0800, 6: 0x86DD}  # EtherType by IP version


@dataclass(slots=True)
class Injected:
    """What became of a batch of packets."""

    sent: int = 0
    too_big: list[bytes] = field(default_factory=list)  # over the MTU of the way out
    failed: dict[str, int] = field(default_factory=dict)  # name of the errno -> packets

    def count(self, packet: bytes, error: OSError) -> None:
        """Note a packet that was not sent."""
        if error.errno == errno.EMSGSIZE:
            self.too_big.append(packet)
            return
        name = errno.errorcode.get(error.errno or 0, str(error.errno))
        self.failed[name] = self.failed.get(name, 0) + 1


class Injector:
    """Puts whole IP packets of both families into one device, as if a route had sent them there.

    No route is needed: the first packets of a flow leave before there is one. And none leads a
    packet back into the TUN. They passed the kernel's packet filter on their way to the TUN.
    """

    def __init__(self, device: str) -> None:
        """Open the socket; needs CAP_NET_RAW. Raises OSError."""
        self._device = device
        # Protocol 0: it receives nothing.
        self._socket = _roomy(socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0))

    def send(self, packets: tuple[bytes, ...]) -> Injected:
        """Send packets in their order; never blocks and never raises OSError."""
        result = Injected()
        for packet in packets:
            try:
                self._socket.sendto(packet, (self._device, _ETH_P[packet[0] >> 4]))
            except OSError as error:
                result.count(packet, error)
            else:
                result.sent += 1
        return result

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Sender:
    """Sends whole IP packets of both families, from any source address, where routes lead."""

    def __init__(self) -> None:
        """Open the sockets; needs CAP_NET_RAW. Raises OSError."""
        self._v4 = _raw_socket(socket.AF_INET)
        self._v6 = _raw_socket(socket.AF_INET6)

    def send(self, packets: tuple[bytes, ...]) -> Injected:
        """Send packets in their order; never blocks and never raises OSError."""
        result = Injected()
        for packet in packets:
            try:
                self._send(packet)
            except OSError as error:
                result.count(packet, error)
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


def _raw_socket(family: socket.AddressFamily) -> socket.socket:
    return _roomy(socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW))


def _roomy(one: socket.socket) -> socket.socket:
    try:
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, SEND_BUFFER)
    except OSError:
        one.close()
        raise
    return one
