"""Addresses on the wire: an AFI and what follows, LCAFs (RFC 8060) as a small tree of values.

What a tree means as an EID or a locator is decided in ``records``.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias, assert_never

from wgmap.addresses import IPAddress
from wgmap.lisp import writer
from wgmap.lisp.messages import WIREGUARD_KEY_ALGORITHM
from wgmap.lisp.reader import Reader
from wgmap.wg.keys import KEY_BYTES

AFI_NONE = 0
AFI_IPV4 = 1
AFI_IPV6 = 2
AFI_LCAF = 16387  # RFC 8060, section 3

TYPE_AFI_LIST = 1  # RFC 8060, section 4.10.1
TYPE_INSTANCE_ID = 2  # RFC 8060, section 4.1
TYPE_NAT_TRAVERSAL = 7  # RFC 8060, section 4.4
TYPE_SECURITY_KEY = 11  # RFC 8060, section 4.7

MAX_NESTING = 4
KEY_REVOKED = 0x01  # R, the last bit of the key word


@dataclass(frozen=True, slots=True)
class AfiList:
    """Type 1: several addresses of one thing."""

    items: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class InstanceId:
    """Type 2: an address in a virtual network."""

    instance: int
    address: "Node"


@dataclass(frozen=True, slots=True)
class NatTraversal:
    """Type 7, of which only the ETR's port, global and private address are kept."""

    port: int
    address: IPAddress
    private_address: IPAddress | None = None


@dataclass(frozen=True, slots=True)
class SecurityKey:
    """Type 11 with one WireGuard public key."""

    key: bytes
    revoked: bool
    address: "Node"


Node: TypeAlias = IPAddress | AfiList | InstanceId | NatTraversal | SecurityKey | None


def read_address(reader: Reader) -> IPAddress | None:
    """Read an AFI and a plain address; None for AFI 0. Raises CodecError for all else."""
    start = reader.offset
    afi = reader.unsigned(2)
    if afi == AFI_IPV4:
        return IPv4Address(reader.take(4))
    if afi == AFI_IPV6:
        return IPv6Address(reader.take(16))
    if afi == AFI_NONE:
        return None
    raise reader.error(f"AFI {afi} where a plain address is wanted", start)


def read_node(reader: Reader, depth: int = 0) -> Node:
    """Read an AFI and what follows it; raises CodecError."""
    start = reader.offset
    if reader.left >= 2 and reader.unsigned(2) == AFI_LCAF:
        if depth == MAX_NESTING:
            raise reader.error(f"LCAFs nested more than {MAX_NESTING} deep", start)
        return _read_lcaf(reader, depth + 1)
    reader.offset = start
    return read_address(reader)


#  0                   1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |         AFI = 16387           |     Rsvd1     |     Flags     |  RFC 8060, section 3
# |     Type      |     Rsvd2     |            Length             |  of what follows
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
def _read_lcaf(reader: Reader, depth: int) -> Node:
    start = reader.offset
    reader.take(2)  # Rsvd1, Flags: ignored on receipt
    kind = reader.unsigned(1)
    reader.take(1)  # Rsvd2; the instance id's mask length, of no meaning with an address
    with reader.restrict_to(reader.unsigned(2)):
        if kind == TYPE_AFI_LIST:
            return _read_afi_list(reader, depth)
        if kind == TYPE_INSTANCE_ID:
            return InstanceId(reader.unsigned(4), read_node(reader, depth))
        if kind == TYPE_NAT_TRAVERSAL:
            return _read_nat_traversal(reader)
        if kind == TYPE_SECURITY_KEY:
            return _read_security_key(reader, depth)
        raise reader.error(f"LCAF type {kind}", start)


def _write_lcaf(kind: int, body: bytes) -> bytes:
    header = AFI_LCAF.to_bytes(2, "big") + bytes((0, 0, kind, 0))
    return header + writer.unsigned(len(body), 2, "LCAF length") + body


def _read_afi_list(reader: Reader, depth: int) -> AfiList:
    items: list[Node] = []
    while reader.left:
        items.append(read_node(reader, depth))
    return AfiList(tuple(items))


# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |       MS UDP Port Number      |      ETR UDP Port Number      |  RFC 8060, section 4.4
# |              AFI = x          |  Global ETR RLOC Address  ... |
# |              AFI = x          |       MS RLOC Address  ...    |
# |              AFI = x          | Private ETR RLOC Address  ... |
# |              AFI = x          |      RTR RLOC Address 1 ...   |  none is sent
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
def _read_nat_traversal(reader: Reader) -> NatTraversal:
    start = reader.offset
    reader.take(2)  # MS port
    port = reader.unsigned(2)
    address = read_address(reader)
    read_address(reader)  # MS address
    private = read_address(reader)
    while reader.left:
        read_address(reader)  # RTRs
    if address is None or not port:
        raise reader.error("LCAF 7 without the ETR's address or port", start)
    return NatTraversal(port, address, private)


# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |   Key Count   |      Rsvd3    | Key Algorithm |   Rsvd4     |R|  RFC 8060, section 4.7
# |           Key Length          |       Key Material ...        |  RFC 8061, section 5
# |                        ... Key Material                       |
# |              AFI = x          |       Locator Address ...     |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
def _read_security_key(reader: Reader, depth: int) -> SecurityKey:
    start = reader.offset
    count, _, algorithm, flags = reader.take(4)
    size = reader.unsigned(2)
    if (count, algorithm, size) != (1, WIREGUARD_KEY_ALGORITHM, KEY_BYTES):
        raise reader.error(
            f"LCAF 11 with {count} keys of algorithm {algorithm}, {size} bytes", start
        )
    key = reader.take(size)
    return SecurityKey(key, bool(flags & KEY_REVOKED), read_node(reader, depth))


def write_node(node: Node) -> bytes:
    """Write an AFI and what follows it; raises ValueError."""
    match node:
        case None:
            return AFI_NONE.to_bytes(2, "big")
        case IPv4Address() | IPv6Address():
            afi = AFI_IPV4 if node.version == 4 else AFI_IPV6
            return afi.to_bytes(2, "big") + node.packed
        case AfiList(items):
            return _write_lcaf(TYPE_AFI_LIST, b"".join(map(write_node, items)))
        case InstanceId(instance, address):
            body = writer.unsigned(instance, 4, "instance id") + write_node(address)
            return _write_lcaf(TYPE_INSTANCE_ID, body)
        case NatTraversal():
            return _write_lcaf(TYPE_NAT_TRAVERSAL, _nat_traversal_body(node))
        case SecurityKey():
            return _write_lcaf(TYPE_SECURITY_KEY, _security_key_body(node))
        case _:
            assert_never(node)


def _nat_traversal_body(node: NatTraversal) -> bytes:
    if not node.port:
        msg = "port: 0 is not an endpoint"
        raise ValueError(msg)
    ports = bytes(2) + writer.unsigned(node.port, 2, "port")
    return ports + b"".join(map(write_node, (node.address, None, node.private_address)))


def _security_key_body(node: SecurityKey) -> bytes:
    flags = KEY_REVOKED if node.revoked else 0
    key = writer.exactly(node.key, KEY_BYTES, "key")
    header = bytes((1, 0, WIREGUARD_KEY_ALGORITHM, flags)) + len(key).to_bytes(2, "big")
    return header + key + write_node(node.address)
