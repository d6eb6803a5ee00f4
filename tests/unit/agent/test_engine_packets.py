"""Which captured packets are carried, and what the probe looks like."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.agent_sim.host import ip_packet
from support.agent_values import IDENTITY
from wgmap_agent.engine import packets
from wgmap_agent.engine.packets import Drop, Header

A4, B4 = ipaddress.ip_address("10.66.1.1"), ipaddress.ip_address("10.66.2.1")
A6, B6 = ipaddress.ip_address("fd66::1"), ipaddress.ip_address("fd66::2")


def test_addresses_of_both_families() -> None:
    assert packets.read(ip_packet(A4, B4, b"x")) == Header(A4, B4)
    assert packets.read(ip_packet(A6, B6, b"x")) == Header(A6, B6)


EDGES = [
    ipaddress.ip_address(int(ipaddress.ip_network(text)[at]) + shift)
    for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")
    for at in (0, -1)
    for shift in (-1, 0, 1)
    if 0 <= int(ipaddress.ip_network(text)[at]) + shift < 1 << 32
] + [ipaddress.ip_address(text) for text in ("::", "::1", "::2", "fe7f::", "fe80::", "febf::ff",
                                             "fec0::", "feff::", "ff00::", "ffff::")]  # fmt: skip


@given(st.sampled_from(EDGES) | st.ip_addresses())
def test_one_host_is_what_the_library_takes_for_none_of_the_others(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    other = (
        address.is_multicast
        or address.is_unspecified
        or address.is_loopback
        or address.is_link_local
        or str(address) == "255.255.255.255"
    )
    assert packets.is_unicast(address) is not other


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x45",
        bytes(20),
        bytes(70_000),
        ip_packet(A4, B4, b"x")[:-1],
        ip_packet(A6, B6, b"x")[:-1],
        ip_packet(A6, B6, b"")[:39],
        b"\x44" + ip_packet(A4, B4, b"")[1:],
        b"\x4f" + ip_packet(A4, B4, b"")[1:],
        b"\x75" + ip_packet(A4, B4, b"")[1:],
    ],
)
def test_what_is_no_whole_packet_is_none(packet: bytes) -> None:
    assert packets.read(packet) is None


@given(st.binary(max_size=120))
def test_any_bytes_are_read_without_an_error(data: bytes) -> None:
    header = packets.read(data)
    assert header is None or header.source.version == header.destination.version


@pytest.mark.parametrize(
    ("source", "destination", "expected"),
    [
        ("10.66.1.1", "10.66.2.1", None),
        ("10.66.1.77", "10.66.2.1", None),  # a host behind us
        ("fd66::1", "fd66::2", None),
        ("10.66.1.1", "224.0.0.1", Drop.NOT_UNICAST),
        ("10.66.1.1", "255.255.255.255", Drop.NOT_UNICAST),
        ("10.66.1.1", "0.0.0.0", Drop.NOT_UNICAST),
        ("fe80::1", "ff02::2", Drop.NOT_UNICAST),
        ("fe80::1", "fd66::2", Drop.NOT_UNICAST),
        ("0.0.0.0", "10.66.2.1", Drop.NOT_UNICAST),
        ("10.66.1.1", "192.0.2.1", Drop.OUTSIDE),
        ("10.66.1.1", "10.66.1.2", Drop.OWN),
        ("192.0.2.11", "10.66.2.1", Drop.SOURCE),
        ("10.66.9.1", "10.66.2.1", Drop.SOURCE),
    ],
)
def test_which_packets_are_carried(source: str, destination: str, expected: Drop | None) -> None:
    header = Header(ipaddress.ip_address(source), ipaddress.ip_address(destination))
    assert packets.judge(header, IDENTITY.prefixes, IDENTITY.overlay) is expected


def ones_complement(data: bytes) -> int:
    total = sum(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_the_probe_is_an_echo_request_with_right_checksums() -> None:
    probe = packets.echo_request(A4, B4, 3)
    assert packets.read(probe) == Header(A4, B4)
    assert ones_complement(probe[:20]) == 0xFFFF
    assert probe[20] == 8
    assert ones_complement(probe[20:] + bytes(len(probe) % 2)) == 0xFFFF


def test_the_probe_for_ipv6() -> None:
    probe = packets.echo_request(A6, B6, 3)
    assert packets.read(probe) == Header(A6, B6)
    assert probe[6] == 58
    assert probe[40] == 128
    body = probe[40:]
    pseudo = A6.packed + B6.packed + len(body).to_bytes(4, "big") + (58).to_bytes(4, "big")
    assert ones_complement(pseudo + body + bytes(len(body) % 2)) == 0xFFFF


@pytest.mark.parametrize(
    ("prefix", "host"),
    [("10.66.2.1/32", "10.66.2.1"), ("10.66.2.0/24", "10.66.2.1"), ("fd66::/64", "fd66::1")],
)
def test_which_host_of_a_prefix_is_probed(prefix: str, host: str) -> None:
    assert packets.host_in(ipaddress.ip_network(prefix)) == ipaddress.ip_address(host)
