"""Records as map servers write them, read with a few operations; everything else is ``records``'.

A first packet waits while the answer is read, and nearly every record has the same layout: a
prefix, in an instance or not, and locators of the form WGMAP without a private address. What is
read here ``records`` reads as the same (the property is tested); whatever differs in one reserved
bit is None, and left to it.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from struct import Struct

from wgmap.addresses import IPAddress, IPNetwork
from wgmap.lisp.messages import Action, Eid, Locator, Record
from wgmap.lisp.reader import Reader

# TTL, locators, mask length, ACT and A, reserved, version, AFI (RFC 9301, section 5.4).
_HEAD = Struct("!IBBBxHH")
_INSTANCE = Struct("!6sIH")  # the rest of an LCAF 2 behind its AFI, up to the address
_INSTANCE_HEAD = {1: bytes((0, 0, 2, 0, 0, 10)), 2: bytes((0, 0, 2, 0, 0, 22))}  # by inner AFI
_IPV4, _IPV6, _LCAF = 1, 2, 16387
_V4, _V6 = Struct("!I"), Struct("!16s")
_ACTIONS = {int(action): action for action in Action}


def _locator_layout(size: int) -> Struct:
    """Priorities and weights, flags; LCAF 1 and 7; port, address; LCAF 11; key, address again."""
    return Struct(f"!BBBBxB18sHH{size}s15sBH32sH{size}s")


def _lcaf(kind: int, length: int) -> bytes:
    return _LCAF.to_bytes(2) + bytes((0, 0, kind, 0)) + length.to_bytes(2)


def _constants(size: int) -> tuple[bytes, bytes]:
    """Return what stands in an AFI list before the port, and between address and key flags."""
    nat, key = 10 + size, 40 + size
    before = _lcaf(1, nat + key + 16) + _lcaf(7, nat) + bytes(2)
    return before, bytes(4) + _lcaf(11, key) + bytes((1, 0, 6))


_LOCATORS = {
    _IPV4: (_locator_layout(4), *_constants(4)),
    _IPV6: (_locator_layout(16), *_constants(16)),
}


def read(reader: Reader) -> Record | None:
    """Read one record; None, and nothing is read, where it is not a usual one."""
    start = reader.offset
    record = _read(reader)
    if record is None:
        reader.offset = start
    return record


def _read(reader: Reader) -> Record | None:
    head = reader.unpack(_HEAD)
    if head is None:
        return None
    ttl, count, length, word, version, afi = head
    eid = _eid(reader, afi, length)
    action = _ACTIONS.get(word >> 5)
    if eid is None or action is None:
        return None
    locators: list[Locator] = []
    for _ in range(count):
        locator = _locator(reader)
        if locator is None:
            return None
        locators.append(locator)
    return Record(eid, tuple(locators), ttl, action, bool(word & 0x10), version & 0xFFF)


def _eid(reader: Reader, afi: int, length: int) -> Eid | None:
    instance = 0
    if afi == _LCAF:
        inner = reader.unpack(_INSTANCE)
        if inner is None or inner[0] != _INSTANCE_HEAD.get(inner[2]):
            return None
        _, instance, afi = inner
    prefix = _prefix(reader, afi, length)
    return None if prefix is None else Eid(prefix, instance)


def _prefix(reader: Reader, afi: int, length: int) -> IPNetwork | None:
    if afi == _IPV4 and length <= 32 and (found := reader.unpack(_V4)) is not None:
        return IPv4Network((found[0], length), strict=False)
    if afi == _IPV6 and length <= 128 and (found := reader.unpack(_V6)) is not None:
        return IPv6Network((int.from_bytes(found[0]), length), strict=False)
    return None


def _locator(reader: Reader) -> Locator | None:
    afi = reader.ahead(26, 2)  # of its address, which the layout follows
    if afi not in _LOCATORS:
        return None
    layout, before, between = _LOCATORS[afi]
    found = reader.unpack(layout)
    if found is None:
        return None
    priority, weight, m_priority, m_weight, flags, one, port, _, address, two, bits, size, key = (
        found[:13]
    )
    if one != before or two != between or size != 32 or found[13:] != (afi, address) or not port:
        return None
    return Locator(
        _address(address),
        port,
        key,
        bool(bits & 1),
        priority,
        weight,
        m_priority,
        m_weight,
        bool(flags & 4),
        bool(flags & 2),
        bool(flags & 1),
    )


def _address(packed: bytes) -> IPAddress:
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)
