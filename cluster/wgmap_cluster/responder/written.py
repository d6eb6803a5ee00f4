"""Records of mappings as bytes: written from rows, and what is read of them where they stand.

The codec says how a record looks; it takes 20 us for one with one locator, and a million come at
once when a responder starts. So for each shape of mapping it is asked once, which bytes differ when
a field does, and the fields of a row are put there: 2 us.
"""

import ipaddress
import struct
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

from wgmap.addresses import prefix_from_bytes
from wgmap.lisp.lcaf import AFI_IPV4, AFI_LCAF
from wgmap.lisp.messages import Eid, Locator, LocatorForm, Record
from wgmap.lisp.records import AUTHORITATIVE, encode_record
from wgmap.wg.keys import KEY_BYTES
from wgmap_cluster.fsm.rows import MappingRow

LENGTH_AT = 5  # of a record: where the length of its prefix is
_A_BYTE = 6  # where ACT and the A bit are
_EID_AT = 10  # where the EID begins, with its AFI
_LCAF = AFI_LCAF.to_bytes(2)  # what it begins with in an instance other than 0, and a key does
_INSTANCE_BYTES = 12  # before the EID's own AFI then; the last four are the instance
_NUMBERS_BYTES = 6  # of a locator, before its AFI
_SHAPES = 1024  # that are remembered
_Values: TypeAlias = list[Any]  # the fields of a row: numbers and bytes


class _Shape(NamedTuple):
    """What decides where the fields of a mapping stand in its record."""

    in_instance: bool
    eid_bytes: int
    keyed: bool
    locators: tuple[tuple[int, int], ...]  # bytes of the address, and of the private one


class _Layout(NamedTuple):
    """How the fields of a shape and what stands between them become a record."""

    between: list[bytes]
    in_order: Callable[[_Values], tuple[Any, ...]]
    pack: Callable[..., bytes]


def record_bytes(instance: int, prefix: bytes, row: MappingRow) -> bytes:
    """Write (part of) a mapping as an authoritative record; raises ValueError, struct.error."""
    locators = tuple([(len(at.address), len(at.private_address)) for at in row.locators])
    shape = _Shape(instance != 0, len(prefix) - 1, bool(row.key), locators)
    between, in_order, pack = _layout(shape)
    return pack(*in_order(_values(instance, prefix, row) + between))


def _values(instance: int, prefix: bytes, row: MappingRow) -> _Values:
    values: _Values = [row.ttl_min, prefix[0], row.version, instance, prefix[1:]]
    for at in row.locators:
        values += (at.priority, at.weight, at.port, at.address, row.key, at.private_address)
    return values


def mapping_record(instance: int, prefix: bytes, row: MappingRow) -> Record:
    """Return (part of) a mapping as the codec's value."""
    return _record(_values(instance, prefix, row))


def _record(values: _Values) -> Record:
    ttl_min, length, version, instance, address, *rest = values
    eid = Eid(prefix_from_bytes(bytes((length,)) + address), instance)
    locators = tuple(_locator(*rest[at : at + 6]) for at in range(0, len(rest), 6))
    return Record(eid, locators, ttl_min, authoritative=True, version=version)


def _locator(
    priority: int, weight: int, port: int, address: bytes, key: bytes, private_address: bytes
) -> Locator:
    inside = ipaddress.ip_address(private_address) if private_address and key else None
    return Locator(
        ipaddress.ip_address(address),
        port,
        key=key or None,
        priority=priority,
        weight=weight,
        private_address=inside,
        form=LocatorForm.WGMAP if key else LocatorForm.PLAIN,
    )


# --------------------------------------------------------------------------------- where they stand


@lru_cache(maxsize=_SHAPES)
def _layout(shape: _Shape) -> _Layout:
    """Find where the fields stand: a field's bytes are those that differ when it does."""
    low, others = _extremes(shape)
    text = encode_record(_record(low))
    places = [
        (start, end, number, code)
        for number, (code, other) in enumerate(others)
        for start, end in _differing(
            text, encode_record(_record([*low[:number], other, *low[number + 1 :]]))
        )
    ]
    places.sort()
    ends = [0, *(end for _, end, _, _ in places)]
    starts = [*(start for start, _, _, _ in places), len(text)]
    between = [text[end:start] for end, start in zip(ends, starts, strict=True)]
    order, codes = [len(low)], [f"{len(between[0])}s"]
    for count, (start, end, number, code) in enumerate(places, 1):
        assert struct.calcsize("!" + code) == end - start, "all bytes of a field differ"
        order += [number, len(low) + count]
        codes += [code, f"{len(between[count])}s"]
    return _Layout(between, itemgetter(*order), struct.Struct("!" + "".join(codes)).pack)


def _differing(one: bytes, other: bytes) -> Iterator[tuple[int, int]]:
    """Yield where two texts differ, as runs."""
    differs = [at for at in range(len(one)) if one[at] != other[at]]
    for _, run in groupby(enumerate(differs), lambda pair: pair[1] - pair[0]):
        places = [at for _, at in run]
        yield places[0], places[-1] + 1


def _extremes(shape: _Shape) -> tuple[_Values, list[tuple[str, Any]]]:
    """Return the fields of a mapping, and for each its code and a value that differs all over."""
    bits = 8 * shape.eid_bytes
    instance = (1, 0xFFFF_FFFE) if shape.in_instance else (0, 0)
    low: _Values = [0, bits, 0, instance[0], bytes(shape.eid_bytes)]
    others: list[tuple[str, Any]] = [("I", 0xFFFF_FFFF), ("B", 0), ("H", 0xFFF), ("I", instance[1])]
    others.append(_ones(shape.eid_bytes))
    for address, private_address in shape.locators:
        sizes = address, KEY_BYTES if shape.keyed else 0, private_address
        low += (0, 0, 1, *map(bytes, sizes))  # no endpoint has port 0
        others += (("B", 255), ("B", 255), ("H", 0xFFFE), *map(_ones, sizes))
    return low, others


def _ones(size: int) -> tuple[str, bytes]:
    return f"{size}s", b"\xff" * size


# ---------------------------------------------------------------------------------- reading them


def place_of(record: bytes) -> tuple[int, bytes]:
    """Read the instance and the prefix that a record is about."""
    instance, at, end = _eid(record)
    return instance, record[LENGTH_AT : LENGTH_AT + 1] + record[at:end]


def is_of_host(record: bytes) -> bool:
    """Say whether a record is about one address."""
    _, at, end = _eid(record)
    return record[LENGTH_AT] == 8 * (end - at)


def has_key(record: bytes) -> bool:
    """Say whether the first locator of a record, which every mapping has, has a key."""
    at = _eid(record)[2] + _NUMBERS_BYTES
    return record[at : at + 2] == _LCAF


def narrowed(record: bytes, prefix: bytes) -> bytes:
    """Write the record of a part of a mapping: the same with another prefix."""
    _, at, end = _eid(record)
    head = record[:LENGTH_AT] + prefix[:1] + record[LENGTH_AT + 1 : at]
    return head + prefix[1:] + record[end:]


def _eid(record: bytes) -> tuple[int, int, int]:
    """Return the instance, and where the address begins and ends."""
    instance, at = 0, _EID_AT
    if record[at : at + 2] == _LCAF:
        at += _INSTANCE_BYTES
        instance = int.from_bytes(record[at - 4 : at])
    at += 2
    return instance, at, at + (4 if record[at - 1] == AFI_IPV4 else 16)


def without_authority(records: tuple[bytes, ...]) -> bytes:
    """Join records that were written with the A bit, without it."""
    return b"".join(map(_unauthoritative, records))


def _unauthoritative(record: bytes) -> bytes:
    cleared = record[_A_BYTE] & ~AUTHORITATIVE
    return record[:_A_BYTE] + bytes((cleared,)) + record[_A_BYTE + 1 :]
