"""EIDs, locators and mapping records (RFC 9301, section 5.4), both directions.

``encode_record`` stands alone: a record that is asked for often is encoded once and joined to
headers from ``codec``.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple, assert_never

from wgmap.addresses import IPAddress, IPNetwork
from wgmap.lisp import lcaf, writer
from wgmap.lisp.lcaf import AfiList, InstanceId, NatTraversal, Node, SecurityKey
from wgmap.lisp.messages import Action, Eid, Locator, LocatorForm, Record
from wgmap.lisp.reader import Reader

DEFAULT_PORT = 51820  # of a WireGuard endpoint whose layout has no room for a port
MAX_COUNT = 255  # records of a message, locators of a record: 8 bits

LOCAL = 0x4  # L
PROBED = 0x2  # p
REACHABLE = 0x1  # R


# ------------------------------------------------------------------------------------------ EIDs


def read_eid(reader: Reader, length: int | None = None) -> Eid | None:
    """Read an EID with the mask length that came before it; None for AFI 0. Raises CodecError.

    Without a length it is a host. Bits beyond the length are cleared, as RFC 9301 says nothing
    of them and some senders leave them in.
    """
    start = reader.offset
    node = lcaf.read_node(reader)
    instance = 0
    if isinstance(node, InstanceId):
        instance, node = node.instance, node.address
    if node is None:
        return None
    if not isinstance(node, IPv4Address | IPv6Address):
        raise reader.error("an EID is an address, in an instance or not", start)
    if length is None:
        length = node.max_prefixlen
    elif length > node.max_prefixlen:
        raise reader.error(f"mask length {length} of an IPv{node.version} EID", start)
    return Eid(_network(node, length), instance)


def _network(address: IPAddress, length: int) -> IPNetwork:
    """Clear the host bits; from integers, as ipaddress would take an address as text (3x)."""
    if isinstance(address, IPv4Address):
        return IPv4Network((int(address), length), strict=False)
    return IPv6Network((int(address), length), strict=False)


def read_prefix(reader: Reader, length: int) -> Eid:
    """Read the EID of a record; raises CodecError, also for AFI 0."""
    start = reader.offset
    eid = read_eid(reader, length)
    if eid is None:
        raise reader.error("a record without an EID", start)
    return eid


def encode_eid(eid: Eid | None) -> bytes:
    """Write AFI and address, in an LCAF 2 where the instance is not 0; raises ValueError."""
    if eid is None:
        return lcaf.write_node(None)
    address = eid.prefix.network_address
    return lcaf.write_node(InstanceId(eid.instance, address) if eid.instance else address)


def encode_host_eid(eid: Eid | None) -> bytes:
    """Write an EID in a place that has no mask length; raises ValueError for other prefixes."""
    if eid is not None and eid.prefix.prefixlen != eid.prefix.max_prefixlen:
        msg = f"source EID: {eid.prefix} is not one address"
        raise ValueError(msg)
    return encode_eid(eid)


# -------------------------------------------------------------------------------------- locators


class _Target(NamedTuple):
    """What the address part of a locator says."""

    form: LocatorForm
    address: IPAddress
    port: int = DEFAULT_PORT
    private_address: IPAddress | None = None
    key: bytes | None = None
    key_revoked: bool = False


def _target(node: Node) -> _Target | None:
    """Recognize the layouts of LocatorForm; None for every other."""
    match node:
        case IPv4Address() | IPv6Address():
            return _Target(LocatorForm.PLAIN, node)
        case SecurityKey(key, revoked, (IPv4Address() | IPv6Address()) as address):
            form = LocatorForm.KEY_ADDRESS
            return _Target(form, address, key=key, key_revoked=revoked)
        case SecurityKey(key, revoked, NatTraversal(port, address, private)):
            return _Target(LocatorForm.KEY_NAT, address, port, private, key, revoked)
        case AfiList((first, SecurityKey(key, revoked, same))):
            return _list_target(first, same, key, revoked)
        case _:
            return None


def _list_target(first: Node, same: Node, key: bytes, revoked: bool) -> _Target | None:
    match first:
        case NatTraversal(port, address, private):
            target = _Target(LocatorForm.WGMAP, address, port, private, key, revoked)
        case IPv4Address() | IPv6Address() as address:
            form = LocatorForm.LIST_ADDRESS_KEY
            target = _Target(form, address, key=key, key_revoked=revoked)
        case _:
            return None
    # The key belongs to the address beside it: AFI 0 says so too, another address does not.
    return target if same is None or same == target.address else None


def _node(locator: Locator) -> Node:
    """Build the layout that ``locator.form`` names; raises ValueError."""
    form = locator.form
    if form is LocatorForm.PLAIN:
        _require(locator.key is None and not locator.key_revoked, "a key", form)
        _require(locator.private_address is None, "a private address", form)
        return locator.address
    if locator.key is None:
        msg = f"a locator of form {form.name} wants a key"
        raise ValueError(msg)
    nat = NatTraversal(locator.port, locator.address, locator.private_address)
    key = SecurityKey(locator.key, locator.key_revoked, locator.address)
    match form:
        case LocatorForm.WGMAP:
            return AfiList((nat, key))
        case LocatorForm.KEY_NAT:
            return SecurityKey(locator.key, locator.key_revoked, nat)
        case LocatorForm.KEY_ADDRESS | LocatorForm.LIST_ADDRESS_KEY:
            _require(locator.port == DEFAULT_PORT, f"port {locator.port}", form)
            _require(locator.private_address is None, "a private address", form)
            return key if form is LocatorForm.KEY_ADDRESS else AfiList((locator.address, key))
        case _:
            assert_never(form)


def _require(condition: bool, what: str, form: LocatorForm) -> None:
    if not condition:
        msg = f"a locator of form {form.name} has no room for {what}"
        raise ValueError(msg)


# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |    Priority   |    Weight     |  M Priority   |   M Weight    |  RFC 9301, section 5.4
# |        Unused Flags     |L|p|R|           Loc-AFI             |
# |                             Locator                           |  RFC 8060
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
def _read_locator(reader: Reader) -> Locator:
    priority, weight, multicast_priority, multicast_weight, _, flags = reader.take(6)
    start = reader.offset
    target = _target(lcaf.read_node(reader))
    if target is None:
        raise reader.error("a locator of an unknown layout", start)
    return Locator(
        target.address,
        target.port,
        target.key,
        target.key_revoked,
        priority,
        weight,
        multicast_priority,
        multicast_weight,
        local=bool(flags & LOCAL),
        probed=bool(flags & PROBED),
        reachable=bool(flags & REACHABLE),
        private_address=target.private_address,
        form=target.form,
    )


def encode_locator(locator: Locator) -> bytes:
    """Write one locator in its own form; raises ValueError."""
    numbers = (
        writer.bits(locator.priority, 8, "priority"),
        writer.bits(locator.weight, 8, "weight"),
        writer.bits(locator.multicast_priority, 8, "multicast priority"),
        writer.bits(locator.multicast_weight, 8, "multicast weight"),
        0,
        LOCAL * locator.local | PROBED * locator.probed | REACHABLE * locator.reachable,
    )
    return bytes(numbers) + lcaf.write_node(_node(locator))


# --------------------------------------------------------------------------------------- records


# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |                          Record TTL                           |  minutes; RFC 9301, 5.4
# | Locator Count | EID mask-len  | ACT |A|       Reserved        |
# | Rsvd  |  Map-Version Number   |            EID-AFI            |  RFC 9302, section 5
# |                          EID-Prefix                           |
# |                       Locators, as above                      |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
AUTHORITATIVE = 0x10  # A, in the byte of ACT
_ACTIONS = {int(action): action for action in Action}


def read_record(reader: Reader) -> Record:
    """Read one mapping record; raises CodecError."""
    start = reader.offset
    ttl = reader.unsigned(4)
    count, length, word = reader.take(3)
    reader.take(1)  # reserved
    version = reader.unsigned(2) & 0xFFF
    action = _ACTIONS.get(word >> 5)
    if action is None:
        raise reader.error(f"ACT {word >> 5}", start + 6)
    eid = read_prefix(reader, length)
    locators = tuple(_read_locator(reader) for _ in range(count))
    return Record(eid, locators, ttl, action, bool(word & AUTHORITATIVE), version)


def encode_record(record: Record) -> bytes:
    """Write one mapping record, to be joined behind a header; raises ValueError."""
    word = writer.bits(record.action, 3, "action") << 5 | AUTHORITATIVE * record.authoritative
    head = (
        writer.unsigned(record.ttl_min, 4, "TTL"),
        bytes((count_of(record.locators, "locators"), record.eid.prefix.prefixlen, word, 0)),
        writer.bits(record.version, 12, "map version").to_bytes(2, "big"),
        encode_eid(record.eid),
    )
    return b"".join(head) + b"".join(map(encode_locator, record.locators))


def count_of(items: tuple[object, ...], name: str) -> int:
    """Return how many there are; raises ValueError over MAX_COUNT."""
    if len(items) > MAX_COUNT:
        msg = f"{len(items)} {name}, at most {MAX_COUNT} go into one count"
        raise ValueError(msg)
    return len(items)
