"""The one shape of Map-Request that nearly all are of, read without the codec.

Agents in instance 0 ask for one host, untraced, with no flag set but I, and s in a refresh. What is
read here the codec reads as the same; everything else is None, and the codec's to judge.
"""

from typing import NamedTuple

from wgmap.lisp.mark import MARK_BYTES, TRACED

# Type 1 without flags but perhaps I and s, one ITR-RLOC, one record (RFC 9301, section 5.2): the
# bytes of the I field at the end, and whether it is a refresh.
_HEADS = {
    bytes((0x10, refresh | marked, 0, 1)): (size, bool(refresh))
    for refresh in (0x00, 0x40)
    for marked, size in ((0x00, 0), (0x10, MARK_BYTES))
}
_NONCE_END = 12
_TRACED = TRACED.to_bytes(4)
_ADDRESS_BYTES = {b"\x00\x01": 4, b"\x00\x02": 16}  # by AFI
_SOURCE_BYTES = {b"\x00\x00": 0, **_ADDRESS_BYTES}
# What stands before the address of a host: reserved (with or without the N bit of RFC 9437),
# mask length, AFI.
_HOST_BYTES = {
    bytes((flag, length)) + afi: size
    for flag in (0x00, 0x80)
    for length, afi, size in ((32, b"\x00\x01", 4), (128, b"\x00\x02", 16))
}


_REPLIES = [bytes((0x20, 0, 0, count)) for count in range(256)]


class Question(NamedTuple):
    """A request of that shape."""

    nonce: bytes
    address: bytes
    mark: bytes  # b"": none
    refresh: bool


def parse(data: bytes) -> Question | None:
    """Read a request of that shape."""
    head = _HEADS.get(data[:4])
    source = _SOURCE_BYTES.get(data[12:14])
    if head is None or source is None:
        return None
    at = 14 + source
    locator = _ADDRESS_BYTES.get(data[at : at + 2])
    if locator is None:
        return None
    at += 6 + locator
    size = _HOST_BYTES.get(data[at - 4 : at])
    mark, refresh = head
    if size is None or len(data) != at + size + mark:
        return None
    if not mark:
        return Question(data[4:_NONCE_END], data[at:], b"", refresh)
    if data[-8:-4] == _TRACED:
        return None
    end = at + size
    return Question(data[4:_NONCE_END], data[at:end], data[end:], refresh)


def reply(nonce: bytes, count: int, records: bytes) -> bytes:
    """Return a Map-Reply without flags (RFC 9301, section 5.4); ``count`` is at most 255."""
    return _REPLIES[count] + nonce + records
