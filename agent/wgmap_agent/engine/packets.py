"""Reads the addresses out of captured IP packets, and says which are carried.

IPv4 (RFC 791, section 3.1)                   IPv6 (RFC 8200, section 3)
    0 version 4, header length in words           0 version 6
    2 total length                                4 payload length
   12 source    16 destination                    8 source    24 destination
"""

import ipaddress
import struct
from collections.abc import Iterable
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from wgmap.addresses import IPAddress, IPNetwork

MAX_PACKET = 65_535
_NO_HOST_4 = frozenset((0, (1 << 32) - 1))  # unspecified, broadcast
_LOOPBACK_4 = 127  # 127.0.0.0/8 (RFC 6890)
_LINK_LOCAL_4 = 169 << 8 | 254  # 169.254.0.0/16
_LINK_LOCAL_6 = 0xFE80 >> 6  # fe80::/10


class Drop(Enum):
    """Why a packet is not carried; the value ends the counter's name."""

    MALFORMED = "malformed"
    NOT_UNICAST = "not_unicast"  # multicast, broadcast, loopback, link-local, unspecified
    OUTSIDE = "outside_overlay"
    OWN = "to_own_prefix"  # a host that does not exist behind us
    SOURCE = "foreign_source"  # the other side's AllowedIPs would refuse it


class Header(NamedTuple):
    """The two addresses of an IP packet."""

    source: IPAddress
    destination: IPAddress


def read(packet: bytes) -> Header | None:
    """Return the addresses, or None where this is no whole IP packet."""
    if not 20 <= len(packet) <= MAX_PACKET:
        return None
    if packet[0] >> 4 == 4:
        return _read_4(packet)
    if packet[0] >> 4 == 6 and len(packet) >= 40:
        return _read_6(packet)
    return None


def _read_4(packet: bytes) -> Header | None:
    header_length = (packet[0] & 0x0F) * 4
    total = int.from_bytes(packet[2:4], "big")
    if header_length < 20 or not header_length <= total <= len(packet):
        return None
    return Header(IPv4Address(packet[12:16]), IPv4Address(packet[16:20]))


def _read_6(packet: bytes) -> Header | None:
    if 40 + int.from_bytes(packet[4:6], "big") > len(packet):
        return None
    return Header(IPv6Address(packet[8:24]), IPv6Address(packet[24:40]))


def is_within(address: IPAddress, prefixes: Iterable[IPNetwork]) -> bool:
    """Say whether an address lies in one of the prefixes (of either family)."""
    return any(address in prefix for prefix in prefixes)


def is_unicast(address: IPAddress) -> bool:
    """Say whether an address can be one host that is reached over a router.

    By numbers: ``ipaddress`` compares with a network for each question.
    """
    number = int(address)
    if address.version == 4:
        top = number >> 24
        multicast, link_local = 224 <= top < 240, number >> 16 == _LINK_LOCAL_4
        return not (multicast or top == _LOOPBACK_4 or link_local or number in _NO_HOST_4)
    return not (number >> 120 == 0xFF or number >> 118 == _LINK_LOCAL_6 or number <= 1)


def judge(
    header: Header, own: tuple[IPNetwork, ...], overlay: tuple[IPNetwork, ...]
) -> Drop | None:
    """Say why a packet is dropped, or None: hosts behind us may send as well as we ourselves."""
    if not (is_unicast(header.destination) and is_unicast(header.source)):
        return Drop.NOT_UNICAST
    if not is_within(header.destination, overlay):
        return Drop.OUTSIDE
    if is_within(header.destination, own):
        return Drop.OWN
    if not is_within(header.source, own):
        return Drop.SOURCE
    return None


# ------------------------------------------------------------------------------------- probes


def echo_request(source: IPAddress, destination: IPAddress, sequence: int) -> bytes:
    """Make an ICMP or ICMPv6 echo request: what asks a peer for a sign of life in the tunnel.

    RFC 792 and RFC 4443, section 4.1. Its answer is never read: it shows in the peer's counter
    of received bytes, and the kernel drops it. Both addresses are of one family.
    """
    body = struct.pack("!HH", 0x7767, sequence & 0xFFFF) + b"wgmap.."
    if isinstance(source, IPv4Address):
        icmp = _with_checksum(b"\x08\x00", body, b"")
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(icmp), 0, 0, 64, 1, 0)
        addresses = source.packed + destination.packed
        checksum = _checksum(head + addresses)
        return head[:10] + struct.pack("!H", checksum) + addresses + icmp
    pseudo = source.packed + destination.packed + struct.pack("!II", len(body) + 4, 58)
    icmp = _with_checksum(b"\x80\x00", body, pseudo)
    return struct.pack("!IHBB", 6 << 28, len(icmp), 58, 64) + pseudo[:32] + icmp


def summed(packet: bytes) -> bytes:
    """Complete the checksum of a UDP packet: one captured may leave that to hardware.

    RFC 768: none (0) will do over IPv4; RFC 8200, section 8.1: not over IPv6. There are no
    extension headers. The header checksum of IPv4 is the kernel's.
    """
    start = (packet[0] & 0xF) * 4 if packet[0] >> 4 == 4 else 40
    head, udp = packet[:start], packet[start:]
    zero = udp[:6] + b"\0\0" + udp[8:]
    if start != 40 or packet[0] >> 4 == 4:
        return head + zero
    pseudo = packet[8:40] + struct.pack("!II", len(udp), 17)
    return head + udp[:6] + struct.pack("!H", _checksum(pseudo + zero) or 0xFFFF) + udp[8:]


def _with_checksum(kind: bytes, body: bytes, pseudo: bytes) -> bytes:
    checksum = _checksum(pseudo + kind + b"\x00\x00" + body)
    return kind + struct.pack("!H", checksum) + body


def _checksum(data: bytes) -> int:
    """Sum as RFC 1071 does."""
    padded = data + b"\x00" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def host_in(prefix: IPNetwork) -> IPAddress:
    """Choose the address of a prefix that a probe goes to: the first that can be a host."""
    if prefix.num_addresses <= 2:
        return prefix.network_address
    return ipaddress.ip_address(prefix.network_address + 1)
