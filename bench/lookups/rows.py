"""A network of any size: what the responder is fed with, and the same for the server in C."""

import ipaddress
import struct
from collections.abc import Iterator
from pathlib import Path

from wgmap.addresses import prefix_to_bytes
from wgmap.lisp.codec import encode
from wgmap.lisp.messages import Eid, MapRequest, RequestRecord
from wgmap_cluster.fsm.rows import Change, LocatorRow, MappingRow, Meta, PeerRow, Table
from wgmap_cluster.responder.written import record_bytes

ASKING = 16  # peers that ask; they registered nothing, so nobody is told of them
FIRST_ASKING = "127.240.0.1"
_FIRST_CONTROL = int(ipaddress.ip_address("127.1.0.0"))
_EIDS = int(ipaddress.ip_address("10.0.0.0"))
_RLOCS = int(ipaddress.ip_address("100.64.0.0"))
_TTL_MIN = 60


def rows(mappings: int, *, keys: bool) -> Iterator[Change]:
    """Yield the tables of a cluster: one host for each of so many peers, and those that ask."""
    yield Change(Table.META, Meta.CLUSTER_ID, bytes(16))
    yield Change(Table.META, Meta.OVERLAY, "10.0.0.0/8")
    yield Change(Table.META, Meta.CONTROL_PREFIX, "fd77:676d:6170::/64")
    first = int(ipaddress.ip_address(FIRST_ASKING))
    for number in range(ASKING):
        yield _peer(f"asking{number}", first + number, ())
    for number in range(mappings):
        prefix = prefix_to_bytes(ipaddress.ip_network((_EIDS + number, 32)))
        yield _peer(f"p{number}", _FIRST_CONTROL + number, (prefix,))
        yield Change(Table.MAPPINGS, (0, prefix), _mapping(number, keys=keys))


def _peer(name: str, address: int, prefixes: tuple[bytes, ...]) -> Change:
    row = PeerRow(name.encode().ljust(32, b"."), struct.pack("!I", address), 0, prefixes)
    return Change(Table.PEERS, name, row)


def _mapping(number: int, *, keys: bool) -> MappingRow:
    locator = LocatorRow(struct.pack("!I", _RLOCS + number), 51820, 1, 100)
    return MappingRow(f"p{number}", _key(number) if keys else b"", (locator,), _TTL_MIN, 1)


def _key(number: int) -> bytes:
    return struct.pack("!I", number) * 8


def write_records(path: Path, mappings: int, *, keys: bool) -> None:
    """Write the file of ``plain.c``: the records as the responder encodes them.

    One is encoded; in the others address, key and locator are put in their places.
    """
    number = 0x5A5A5A  # no other bytes of the record are like those that are made of it
    prefix = prefix_to_bytes(ipaddress.ip_network((_EIDS + number, 32)))
    record = bytearray(record_bytes(0, prefix, _mapping(number, keys=keys)))
    eid, rloc = (record.index(struct.pack("!I", base + number)) for base in (_EIDS, _RLOCS))
    key = record.index(_key(number)) if keys else None
    with path.open("wb") as file:
        for number in range(mappings):
            struct.pack_into("!I", record, eid, _EIDS + number)
            struct.pack_into("!I", record, rloc, _RLOCS + number)
            if key is not None:
                record[key : key + 32] = _key(number)
            file.write(struct.pack("!IH", _EIDS + number, len(record)) + record)


def template() -> tuple[bytes, int]:
    """Return a Map-Request as agents send it, and where the address of its host stands."""
    host = ipaddress.ip_network((_EIDS, 32))
    rloc = ipaddress.ip_address("fd77:676d:6170::1")
    data = encode(MapRequest(0, (rloc,), (RequestRecord(Eid(host)),)))
    return data, len(data) - 4
