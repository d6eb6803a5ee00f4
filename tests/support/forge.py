"""IPv6/UDP packets with any source address, put on a link as a hostile neighbour would."""

import socket
import struct
from ipaddress import IPv6Address

from wgmap_chaos.flow import socket_in


def udp6_frame(
    macs: tuple[bytes, bytes],
    source: tuple[IPv6Address, int],
    destination: tuple[IPv6Address, int],
    payload: bytes,
) -> bytes:
    """Build an Ethernet frame; ``macs`` are (source, destination)."""
    length = 8 + len(payload)
    pseudo = source[0].packed + destination[0].packed + struct.pack("!II", length, 17)
    header = struct.pack("!HHHH", source[1], destination[1], length, 0)
    checksum = _ones_complement(pseudo + header + payload) or 0xFFFF
    udp = header[:6] + struct.pack("!H", checksum) + payload
    ip = struct.pack("!IHBB", 6 << 28, length, 17, 64)
    packet = ip + source[0].packed + destination[0].packed + udp
    return macs[1] + macs[0] + b"\x86\xdd" + packet


def send_frame(netns: str, interface: str, frame: bytes) -> None:
    """Put a frame on a link from inside a namespace."""
    with socket_in(netns, socket.AF_PACKET, socket.SOCK_RAW) as link:
        link.bind((interface, 0x86DD))
        link.send(frame)


def _ones_complement(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
