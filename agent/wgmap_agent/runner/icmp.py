"""Answers to senders whose packets cannot be carried: ICMP and ICMPv6 errors. Pure.

RFC 792, RFC 1122 section 3.2.2, RFC 1191 and RFC 1812 section 4.3 for IPv4; RFC 4443 for IPv6.
"""

import ipaddress
import struct
from dataclasses import dataclass

from wgmap.addresses import IPAddress
from wgmap_agent.engine.types import Refusal

HOP_LIMIT = 64
IPV4_MAX = 576  # an error never exceeds it (RFC 1812, 4.3.2.3)
IPV6_MAX = 1280  # the least IPv6 MTU (RFC 4443, 3)

_ICMP, _ICMPV6, _FRAGMENT = 1, 58, 44
_V4_DONT_FRAGMENT, _V4_FRAGMENT_OFFSET = 0x4000, 0x1FFF
_V4_HEADER, _V6_HEADER = 20, 40
_INTERNETWORK_CONTROL = 0xC0  # precedence of errors (RFC 1812, 4.3.2.5)
# Types that ask or answer; whatever else is an error or unknown, and gets no error back.
_V4_QUERIES = frozenset((0, 8, 9, 10, 13, 14, 15, 16, 17, 18))
_V6_FIRST_INFORMATIONAL = 128
_V6_REDIRECT = 137
_V6_EXTENSIONS = frozenset((0, 43, 60, 135, 139, 140))  # of the form next header, length

# (type, code): RFC 792 and RFC 1812 5.2.7.1; RFC 4443 3.1 and 3.2
_V4_CODES = {
    Refusal.UNREACHABLE: (3, 1),  # host unreachable, as WireGuard itself answers
    Refusal.PROHIBITED: (3, 13),  # communication administratively prohibited
    Refusal.TOO_BIG: (3, 4),  # fragmentation needed and DF set
}
_V6_CODES = {
    Refusal.UNREACHABLE: (1, 3),  # address unreachable
    Refusal.PROHIBITED: (1, 1),  # administratively prohibited
    Refusal.TOO_BIG: (2, 0),
}


@dataclass(frozen=True, slots=True)
class Header:
    """What is read of a captured packet."""

    source: IPAddress
    destination: IPAddress


def header(packet: bytes) -> Header | None:
    """Read the addresses of an IP packet; None where it is none."""
    if len(packet) >= _V4_HEADER and packet[0] >> 4 == 4:
        return Header(ipaddress.IPv4Address(packet[12:16]), ipaddress.IPv4Address(packet[16:20]))
    if len(packet) >= _V6_HEADER and packet[0] >> 4 == 6:
        return Header(ipaddress.IPv6Address(packet[8:24]), ipaddress.IPv6Address(packet[24:40]))
    return None


def error_for(packet: bytes, refusal: Refusal, source: IPAddress, mtu: int = 0) -> bytes | None:
    """Build the whole IP packet that tells the sender of ``packet`` about ``refusal``.

    ``source`` is the address the error comes from, of the packet's family; ``mtu`` (bytes)
    matters with TOO_BIG only. None where the RFCs forbid an answer: to an ICMP error, to a
    fragment other than the first, to a sender or destination that is not one host, and too
    big to an IPv4 packet that may be fragmented.
    """
    about = header(packet)
    if about is None or about.source.version != source.version:
        return None
    if not _is_single_host(about.source):
        return None
    if source.version == 4:
        return _error_v4(packet, about, refusal, source, mtu)
    return _error_v6(packet, about, refusal, source, mtu)


def checksum(data: bytes) -> int:
    """Compute the Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _is_single_host(address: IPAddress) -> bool:
    return not (
        address.is_multicast
        or address.is_unspecified
        or address.is_loopback
        or (address.version == 4 and address.is_reserved)
    )


# --------------------------------------------------------------------------------------- IPv4


def _error_v4(
    packet: bytes, about: Header, refusal: Refusal, source: IPAddress, mtu: int
) -> bytes | None:
    if not _may_answer_v4(packet, about, refusal):
        return None
    kind, code = _V4_CODES[refusal]
    rest = mtu if refusal is Refusal.TOO_BIG else 0
    quoted = packet[: IPV4_MAX - _V4_HEADER - 8]
    body = bytearray(struct.pack("!BBHHH", kind, code, 0, 0, min(rest, 0xFFFF)) + quoted)
    struct.pack_into("!H", body, 2, checksum(bytes(body)))
    return _header_v4(source, about.source, len(body)) + bytes(body)


def _may_answer_v4(packet: bytes, about: Header, refusal: Refusal) -> bool:
    (flags,) = struct.unpack_from("!H", packet, 6)
    if not _is_single_host(about.destination) or flags & _V4_FRAGMENT_OFFSET:
        return False
    if refusal is Refusal.TOO_BIG and not flags & _V4_DONT_FRAGMENT:
        return False
    length = (packet[0] & 0xF) * 4
    if packet[9] != _ICMP:
        return True
    return len(packet) > length and packet[length] in _V4_QUERIES


def _header_v4(source: IPAddress, destination: IPAddress, payload: int) -> bytes:
    fields = (0x45, _INTERNETWORK_CONTROL, _V4_HEADER + payload, 0, 0, HOP_LIMIT, _ICMP)
    addresses = source.packed + destination.packed
    bare = struct.pack("!BBHHHBBH", *fields, 0) + addresses
    return struct.pack("!BBHHHBBH", *fields, checksum(bare)) + addresses


# --------------------------------------------------------------------------------------- IPv6


def _error_v6(
    packet: bytes, about: Header, refusal: Refusal, source: IPAddress, mtu: int
) -> bytes | None:
    # Too big may go to the sender of a multicast packet (RFC 4443, 2.4 e.3).
    if refusal is not Refusal.TOO_BIG and about.destination.is_multicast:
        return None
    if not _may_answer_v6(packet):
        return None
    kind, code = _V6_CODES[refusal]
    rest = mtu if refusal is Refusal.TOO_BIG else 0
    quoted = packet[: IPV6_MAX - _V6_HEADER - 8]
    body = bytearray(struct.pack("!BBHI", kind, code, 0, rest) + quoted)
    addresses = source.packed + about.source.packed
    pseudo = addresses + struct.pack("!II", len(body), _ICMPV6)
    struct.pack_into("!H", body, 2, checksum(pseudo + bytes(body)))
    fixed = struct.pack("!IHBB", 6 << 28, len(body), _ICMPV6, HOP_LIMIT)
    return fixed + addresses + bytes(body)


def _may_answer_v6(packet: bytes) -> bool:
    """Walk the extension headers: no answer to later fragments, ICMPv6 errors and redirects."""
    following, offset = packet[6], _V6_HEADER
    while following in _V6_EXTENSIONS or following == _FRAGMENT:
        if len(packet) < offset + 8:
            return False
        if following == _FRAGMENT:
            if struct.unpack_from("!H", packet, offset + 2)[0] & 0xFFF8:
                return False
            length = 8
        else:
            length = 8 + packet[offset + 1] * 8
        following, offset = packet[offset], offset + length
    if following != _ICMPV6:
        return True
    if len(packet) <= offset:
        return False
    kind = packet[offset]
    return kind >= _V6_FIRST_INFORMATIONAL and kind != _V6_REDIRECT
