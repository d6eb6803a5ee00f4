"""Records of mappings written from rows, without the codec's values between them.

Where a million mappings are asked for at random hardly any answer was given before, and writing it
is most of what it costs: by way of the codec 20 us for a record with one locator, here 1.6 us. The
bytes are those of ``wgmap.lisp.records.encode_record``, which the tests hold it to.
"""

import struct

from wgmap.lisp.lcaf import (
    AFI_IPV4,
    AFI_IPV6,
    AFI_LCAF,
    AFI_NONE,
    TYPE_AFI_LIST,
    TYPE_INSTANCE_ID,
    TYPE_NAT_TRAVERSAL,
    TYPE_SECURITY_KEY,
)
from wgmap.lisp.messages import WIREGUARD_KEY_ALGORITHM
from wgmap.lisp.records import AUTHORITATIVE, REACHABLE
from wgmap.wg.keys import KEY_BYTES
from wgmap_cluster.fsm.rows import LocatorRow, MappingRow

_A_BYTE = 6  # of a record: where ACT and the A bit are
_RECORD = struct.Struct("!IBBBBH")  # TTL, locators, mask length, ACT and A, reserved, version
_LOCATOR = struct.Struct("!BBBBBB")  # priorities, weights, flags (RFC 9301, section 5.4)
_LCAF = struct.Struct("!HBBBBH")  # AFI, reserved, flags, type, reserved, length (RFC 8060)
_PORTS = struct.Struct("!HH")  # of the mapping system, of the endpoint (RFC 8060, section 4.4)
_INSTANCE = struct.Struct("!I")
_KEY = bytes((1, 0, WIREGUARD_KEY_ALGORITHM, 0)) + KEY_BYTES.to_bytes(2)
_AFI = {0: AFI_NONE.to_bytes(2), 4: AFI_IPV4.to_bytes(2), 16: AFI_IPV6.to_bytes(2)}
_NOBODY_RELAYS = _AFI[0]


def record_bytes(instance: int, prefix: bytes, row: MappingRow) -> bytes:
    """Write (part of) a mapping as an authoritative record; raises ValueError, struct.error."""
    locators = row.locators
    head = _RECORD.pack(row.ttl_min, len(locators), prefix[0], AUTHORITATIVE, 0, row.version)
    eid = _address(prefix[1:])
    if instance:
        eid = _lcaf(TYPE_INSTANCE_ID, _INSTANCE.pack(instance) + eid)
    return b"".join((head, eid, *[_locator(at, row.key) for at in locators]))


def _locator(row: LocatorRow, key: bytes) -> bytes:
    numbers = _LOCATOR.pack(row.priority, row.weight, 255, 0, 0, REACHABLE)
    address = _address(row.address)
    if not key:
        return numbers + address
    ports = _PORTS.pack(0, row.port)
    nat = ports + address + _NOBODY_RELAYS + _address(row.private_address)
    both = _lcaf(TYPE_NAT_TRAVERSAL, nat) + _lcaf(TYPE_SECURITY_KEY, _KEY + key + address)
    return numbers + _lcaf(TYPE_AFI_LIST, both)


def _address(packed: bytes) -> bytes:
    return _AFI[len(packed)] + packed


def _lcaf(kind: int, body: bytes) -> bytes:
    return _LCAF.pack(AFI_LCAF, 0, 0, kind, 0, len(body)) + body


def without_authority(records: tuple[bytes, ...]) -> bytes:
    """Join records that were written with the A bit, without it."""
    return b"".join(map(_unauthoritative, records))


def _unauthoritative(record: bytes) -> bytes:
    cleared = record[_A_BYTE] & ~AUTHORITATIVE
    return record[:_A_BYTE] + bytes((cleared,)) + record[_A_BYTE + 1 :]
