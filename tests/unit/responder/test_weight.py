"""What a datagram takes of its sender's limit grows with the work that it is."""

import ipaddress

import pytest

from support.replica import map_register
from support.tables import SETTINGS, Network, control, enrolled, mapped, replies, request
from wgmap.lisp.codec import encode
from wgmap.lisp.mark import Mark
from wgmap.lisp.messages import (
    Eid,
    Encapsulated,
    Locator,
    MapNotifyAck,
    MapRequest,
    Record,
    RequestRecord,
)
from wgmap_cluster.responder.weight import weight

HOST = ipaddress.ip_address("fd66::1")
RLOC = ipaddress.ip_address(control("a1"))
MARK = Mark(b"i" * 16, 1, 2).xtr()


def asking(count: int) -> MapRequest:
    records = tuple(RequestRecord(Eid(ipaddress.ip_network(HOST + n))) for n in range(count))
    return MapRequest(1, (RLOC,), records, Eid(ipaddress.ip_network(HOST)), xtr=MARK)


def wrapped(inner: MapRequest, at: str) -> bytes:
    address = ipaddress.ip_address(at)
    return encode(Encapsulated(address, 4342, address, 4342, inner))


@pytest.mark.parametrize("at", ["192.0.2.1", "fd66::1"])
def test_the_usual_request_counts_once_however_it_is_wrapped(at: str) -> None:
    assert weight(encode(asking(1))) == 1
    assert weight(wrapped(asking(1), at)) <= 2


@pytest.mark.parametrize("at", ["192.0.2.1", "fd66::1"])
def test_a_request_counts_as_many_as_it_asks_for(at: str) -> None:
    assert weight(encode(asking(32))) == 32
    assert weight(wrapped(asking(32), at)) == 32


def test_what_is_long_counts_by_its_length() -> None:
    many = Record(Eid(ipaddress.ip_network(HOST)), 100 * (Locator(HOST, 1, b"k" * 32),))
    long = encode(MapNotifyAck(1, (many,)))
    assert weight(long) > len(long) / 200
    assert weight(encode(MapRequest(1, (RLOC,), asking(1).records, map_reply_record=many))) > 60


def test_registers_of_hosts_count_once_and_long_ones_more() -> None:
    assert weight(map_register(1, "10.66.1.1/32", "fd66::1/128")) == 1
    assert weight(map_register(1, *(f"10.66.{n}.0/24" for n in range(64)))) == 7


@pytest.mark.parametrize("data", [b"", b"\x10", b"\x80", b"\x80" + bytes(9), b"\xff"])
def test_anything_counts(data: bytes) -> None:
    assert weight(data) == 1


def test_many_questions_in_one_datagram_are_limited_as_many() -> None:
    network = Network(enrolled("a1"), enrolled("a2"), mapped("a2", "10.66.2.1/32"))
    assert SETTINGS.requests
    several = request(*(f"10.66.3.{n}/32" for n in range(20)))
    answered = sum(bool(replies(network.send("a1", several))) for _ in range(1000))
    assert answered == SETTINGS.requests[1] / 20
    assert network.service.counters["refused.limited"] == 1000 - answered
