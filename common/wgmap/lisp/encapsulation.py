"""The inner IP and UDP headers of an Encapsulated Control Message (RFC 9301, section 5.8).

Only what such a message carries is understood: no fragments, no IPv6 extension headers.
"""

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from wgmap.addresses import IPAddress
from wgmap.lisp import writer
from wgmap.lisp.messages import CodecError
from wgmap.lisp.reader import Reader

PROTOCOL_UDP = 17
IPV4_HEADER_BYTES = 20
UDP_HEADER_BYTES = 8
HOP_LIMIT = 64
DONT_FRAGMENT = 0x4000


class Packet(NamedTuple):
    """A UDP datagram in its IP packet."""

    source: IPAddress
    source_port: int
    destination: IPAddress
    destination_port: int
    payload: bytes


def internet_checksum(data: bytes) -> int:
    """Return the ones' complement sum of RFC 1071; 0 over data that holds its own checksum."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def read_packet(reader: Reader) -> Packet:
    """Read an IP packet that fills the rest of the datagram; raises CodecError."""
    start = reader.offset
    if not reader.left:
        raise reader.error("an encapsulated message without an inner packet")
    version = reader.unsigned(1) >> 4
    reader.offset = start
    if version == 4:
        source, destination = _read_ipv4(reader)
    elif version == 6:
        source, destination = _read_ipv6(reader)
    else:
        raise reader.error(f"IP version {version}", start)
    return _read_udp(reader, source, destination)


# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |Version|  IHL  |Type of Service|          Total Length         |  RFC 791, section 3.1
# |         Identification        |Flags|      Fragment Offset    |
# |  Time to Live |    Protocol   |         Header Checksum       |
# |                         Source Address                        |
# |                      Destination Address                      |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
def _read_ipv4(reader: Reader) -> tuple[IPAddress, IPAddress]:
    start = reader.offset
    size = reader.left
    header = reader.take(IPV4_HEADER_BYTES)
    options = 4 * (header[0] & 0xF) - IPV4_HEADER_BYTES
    total, _, fragment, _, protocol = struct.unpack("!HHHBB", header[2:10])
    if options < 0 or total != size:
        raise CodecError("inner IPv4 lengths", start)
    if internet_checksum(header + reader.take(options)):
        raise CodecError("inner IPv4 header checksum", start)
    if fragment & ~DONT_FRAGMENT or protocol != PROTOCOL_UDP:
        raise CodecError("the inner packet is not a whole UDP datagram", start)
    return IPv4Address(header[12:16]), IPv4Address(header[16:20])


# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |Version| Traffic Class |           Flow Label                  |  RFC 8200, section 3
# |         Payload Length        |  Next Header  |   Hop Limit   |
# |                  Source Address (16 bytes)                    |
# |                Destination Address (16 bytes)                 |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
def _read_ipv6(reader: Reader) -> tuple[IPAddress, IPAddress]:
    start = reader.offset
    reader.take(4)
    size = reader.unsigned(2)
    next_header, _ = reader.take(2)
    addresses = IPv6Address(reader.take(16)), IPv6Address(reader.take(16))
    if size != reader.left:
        raise CodecError("inner IPv6 length", start)
    if next_header != PROTOCOL_UDP:
        raise CodecError("the inner packet is not a UDP datagram", start)
    return addresses


# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |          Source Port          |       Destination Port        |  RFC 768
# |            Length             |            Checksum           |  0: not computed
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
def _read_udp(reader: Reader, source: IPAddress, destination: IPAddress) -> Packet:
    start = reader.offset
    size = reader.left
    header = reader.take(UDP_HEADER_BYTES)
    source_port, destination_port, length, checksum = struct.unpack("!HHHH", header)
    if length != size:
        raise CodecError("inner UDP length", start)
    payload = reader.take(reader.left)
    if checksum and internet_checksum(_pseudo_header(source, destination, size) + header + payload):
        raise CodecError("inner UDP checksum", start)
    return Packet(source, source_port, destination, destination_port, payload)


def _pseudo_header(source: IPAddress, destination: IPAddress, length: int) -> bytes:
    """RFC 768 for IPv4; RFC 8200, section 8.1 for IPv6 (the same sum, wider addresses)."""
    return source.packed + destination.packed + struct.pack("!IHH", length, 0, PROTOCOL_UDP)


def encode_packet(packet: Packet) -> bytes:
    """Write IP and UDP headers with their checksums and the payload; raises ValueError."""
    if packet.source.version != packet.destination.version:
        msg = f"{packet.source} and {packet.destination} do not fit one packet"
        raise ValueError(msg)
    datagram = _encode_udp(packet)
    if packet.source.version == 4:
        return _encode_ipv4_header(packet, len(datagram)) + datagram
    size = writer.unsigned(len(datagram), 2, "inner IPv6 length")
    fixed = b"\x60\0\0\0" + size + bytes((PROTOCOL_UDP, HOP_LIMIT))
    return fixed + packet.source.packed + packet.destination.packed + datagram


def _encode_udp(packet: Packet) -> bytes:
    length = UDP_HEADER_BYTES + len(packet.payload)
    header = (
        writer.unsigned(packet.source_port, 2, "source port")
        + writer.unsigned(packet.destination_port, 2, "destination port")
        + writer.unsigned(length, 2, "inner UDP length")
    )
    pseudo = _pseudo_header(packet.source, packet.destination, length)
    # 0 means "not computed", so a sum of 0 is written as its other representation.
    checksum = internet_checksum(pseudo + header + b"\0\0" + packet.payload) or 0xFFFF
    return header + checksum.to_bytes(2, "big") + packet.payload


def _encode_ipv4_header(packet: Packet, size: int) -> bytes:
    total = writer.bits(IPV4_HEADER_BYTES + size, 16, "inner IPv4 length")
    fixed = struct.pack("!BBHHHBB", 0x45, 0, total, 0, DONT_FRAGMENT, HOP_LIMIT, PROTOCOL_UDP)
    addresses = packet.source.packed + packet.destination.packed
    checksum = internet_checksum(fixed + b"\0\0" + addresses)
    return fixed + checksum.to_bytes(2, "big") + addresses
