"""UDP over IPv6 as bytes: what travels inside a control tunnel."""

import struct
from ipaddress import IPv6Address

_IPV6 = struct.Struct("!IHBB16s16s")  # RFC 8200, section 3
_UDP = struct.Struct("!HHHH")
_NEXT_UDP = 17
_HOPS = 64


def datagram(
    source: IPv6Address, target: IPv6Address, ports: tuple[int, int], data: bytes
) -> bytes:
    """Return an IPv6 packet with a UDP datagram; ``ports``: from, to."""
    length = _UDP.size + len(data)
    pseudo = source.packed + target.packed + struct.pack("!II", length, _NEXT_UDP)
    checksum = _checksum(pseudo + _UDP.pack(*ports, length, 0) + data) or 0xFFFF
    header = _IPV6.pack(6 << 28, length, _NEXT_UDP, _HOPS, source.packed, target.packed)
    return header + _UDP.pack(*ports, length, checksum) + data


def payload(packet: bytes) -> tuple[int, bytes] | None:
    """Return the source port and the data of such a packet; None for anything else."""
    if len(packet) < _IPV6.size + _UDP.size or packet[0] >> 4 != 6 or packet[6] != _NEXT_UDP:
        return None
    port, _, length, _ = _UDP.unpack_from(packet, _IPV6.size)
    return port, packet[_IPV6.size + _UDP.size : _IPV6.size + length]


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)
