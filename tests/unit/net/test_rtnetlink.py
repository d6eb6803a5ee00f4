"""Route changes as bytes, read by the library's decoder."""

import ipaddress
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from wgmap.net.plan import Route
from wgmap.net.rtnetlink import delete_route, parse_acknowledgements, replace_route

NEWROUTE, DELROUTE = 24, 25


def decoded(data: bytes) -> Any:
    message = rtmsg(data)
    message.decode()
    assert message["header"]["length"] == len(data)
    return message


@pytest.mark.parametrize(
    ("prefix", "source", "family", "metric"),
    [("10.66.2.0/24", "10.66.1.1", 2, None), ("fd66:2::/64", "fd66:1::1", 10, 1024)],
)
def test_a_route_as_the_library_reads_it(
    prefix: str, source: str, family: int, metric: int | None
) -> None:
    route = Route(ipaddress.ip_network(prefix), "d", ipaddress.ip_address(source), table=1077)
    message = decoded(replace_route(route, 7, 87, 99))
    assert message["header"]["type"] == NEWROUTE
    assert message["header"]["sequence_number"] == 99
    assert (message["family"], message["proto"]) == (family, 87)
    assert f"{message.get_attr('RTA_DST')}/{message['dst_len']}" == prefix
    assert message.get_attr("RTA_PREFSRC") == source
    assert message.get_attr("RTA_OIF") == 7
    assert message.get_attr("RTA_TABLE") == 1077
    assert message.get_attr("RTA_PRIORITY") == metric


def test_a_deletion_names_protocol_and_metric() -> None:
    route = Route(ipaddress.ip_network("10.66.2.0/24"), "d", metric=5)
    message = decoded(delete_route(route, 7, 87, 1))
    assert message["header"]["type"] == DELROUTE
    assert (message["proto"], message.get_attr("RTA_PRIORITY")) == (87, 5)


def acknowledgement(sequence: int, code: int) -> bytes:
    return struct.pack("=IHHIIi", 36, 2, 0, sequence, 0, -code) + bytes(16)


def test_acknowledgements_of_one_datagram() -> None:
    data = acknowledgement(1, 0) + struct.pack("=IHHII", 20, NEWROUTE, 0, 2, 0) + bytes(4)
    assert list(parse_acknowledgements(data + acknowledgement(3, 22))) == [(1, 0), (3, 22)]


@given(st.binary(max_size=100))
def test_garbage_is_passed_over(data: bytes) -> None:
    assert len(list(parse_acknowledgements(data))) <= len(data) // 16
