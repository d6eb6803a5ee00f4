"""Limits, and values that cannot be written."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address

import pytest

from wgmap.lisp.codec import MAX_DATAGRAM, decode, encode
from wgmap.lisp.messages import (
    Authentication,
    CodecError,
    Eid,
    Encapsulated,
    Locator,
    LocatorForm,
    MapNotify,
    MapRegister,
    MapReply,
    MapRequest,
    Message,
    Record,
    RequestRecord,
    XtrId,
)

EID = Eid(IPv4Network("10.66.1.1/32"))
ADDRESS = IPv4Address("192.0.2.11")
KEY = bytes(range(32))
LOCATOR = Locator(ADDRESS, key=KEY)
RECORD = Record(EID, (LOCATOR,))
REQUEST = MapRequest(1, (ADDRESS,), (RequestRecord(EID),))
INNER = Encapsulated(ADDRESS, 4342, ADDRESS, 4342, REQUEST)


def with_locator(**changes: object) -> MapReply:
    """A reply whose locator differs from a good one."""
    locator = replace(LOCATOR, **changes)  # type: ignore[arg-type]
    return MapReply(1, (replace(RECORD, locators=(locator,)),))


CANNOT_BE_WRITTEN: dict[str, Message] = {
    "nonce of 65 bits": MapReply(1 << 64, ()),
    "negative nonce": MapReply(-1, ()),
    "256 records": MapReply(1, (RECORD,) * 256),
    "256 locators": MapReply(1, (replace(RECORD, locators=(LOCATOR,) * 256),)),
    "TTL": MapReply(1, (replace(RECORD, ttl_min=1 << 32),)),
    "version of 13 bits": MapReply(1, (replace(RECORD, version=4096),)),
    "instance of 33 bits": MapReply(1, (replace(RECORD, eid=replace(EID, instance=1 << 32)),)),
    "priority": with_locator(priority=256),
    "weight": with_locator(weight=-1),
    "port 0": with_locator(port=0),
    "port 65536": with_locator(port=65536),
    "key of 31 bytes": with_locator(key=KEY[1:]),
    "no key": with_locator(key=None),
    "plain with key": with_locator(form=LocatorForm.PLAIN),
    "plain with private address": with_locator(
        form=LocatorForm.PLAIN, key=None, private_address=ADDRESS
    ),
    "port without room": with_locator(form=LocatorForm.KEY_ADDRESS, port=1),
    "private address without room": with_locator(
        form=LocatorForm.LIST_ADDRESS_KEY, private_address=ADDRESS
    ),
    "no ITR-RLOC": replace(REQUEST, itr_rlocs=()),
    "33 ITR-RLOCs": replace(REQUEST, itr_rlocs=(ADDRESS,) * 33),
    "256 request records": replace(REQUEST, records=(RequestRecord(EID),) * 256),
    "source EID with a mask": replace(REQUEST, source_eid=Eid(IPv4Network("10.0.0.0/8"))),
    "xTR-ID of 15 bytes": replace(REQUEST, xtr=XtrId(bytes(15), bytes(8))),
    "Site-ID of 9 bytes": MapNotify(1, (), xtr=XtrId(bytes(16), bytes(9))),
    "key id": MapRegister(1, (), Authentication(256)),
    "algorithm id": MapRegister(1, (), Authentication(0, -1)),
    "authentication data": MapRegister(1, (), Authentication(0, 0, bytes(65536))),
    "message over 64 KiB": MapReply(1, (replace(RECORD, locators=(LOCATOR,) * 255),) * 4),
    "two families": replace(INNER, destination=IPv6Address("::1")),
    "source port": replace(INNER, source_port=65536),
    "destination port": replace(INNER, destination_port=-1),
}


@pytest.mark.parametrize("message", CANNOT_BE_WRITTEN.values(), ids=CANNOT_BE_WRITTEN)
def test_value_that_cannot_be_written(message: Message) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        encode(message)
    assert not isinstance(caught.value, CodecError)


def test_largest_counts_round_trip() -> None:
    plain = Locator(ADDRESS, form=LocatorForm.PLAIN)
    for message in (
        MapReply(1, (replace(RECORD, locators=()),) * 255),
        MapReply(1, (replace(RECORD, locators=(plain,) * 255),)),
        replace(REQUEST, itr_rlocs=(ADDRESS,) * 32),
    ):
        assert decode(encode(message)) == message


def test_over_64_kib_is_refused_unread() -> None:
    with pytest.raises(CodecError, match="no datagram"):
        decode(bytes(MAX_DATAGRAM + 1))


def test_many_nested_lists_are_refused_at_the_fourth() -> None:
    node = b"\x00\x01" + ADDRESS.packed
    for _ in range(2000):
        node = b"\x40\x03\x00\x00\x01\x00" + len(node).to_bytes(2, "big") + node
    head = encode(MapReply(1, (Record(EID),)))
    one_locator = head[:16] + b"\x01" + head[17:]

    with pytest.raises(CodecError, match="nested more than 4 deep"):
        decode(one_locator + bytes(6) + node)


def test_an_afi_list_of_a_whole_datagram_is_refused() -> None:
    empties = bytes(2 * 30000)
    node = b"\x40\x03\x00\x00\x01\x00" + len(empties).to_bytes(2, "big") + empties
    head = encode(MapReply(1, (Record(EID),)))

    with pytest.raises(CodecError, match="unknown layout"):
        decode(head[:16] + b"\x01" + head[17:] + bytes(6) + node)
