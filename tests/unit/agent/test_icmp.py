"""ICMP errors: what is answered, to whom, and what never is."""

import ipaddress
import struct

import pytest

from wgmap.addresses import IPAddress
from wgmap_agent.engine.types import Refusal
from wgmap_agent.runner import icmp

A4, B4 = ipaddress.ip_address("10.66.1.1"), ipaddress.ip_address("10.66.2.1")
A6, B6 = ipaddress.ip_address("fd66::1"), ipaddress.ip_address("fd66::2")
UDP, ICMP, ICMPV6 = 17, 1, 58


def v4(
    payload: bytes = b"x" * 8,
    *,
    source: IPAddress = A4,
    destination: IPAddress = B4,
    protocol: int = UDP,
    flags: int = 0,
) -> bytes:
    size = 20 + len(payload)
    fields = struct.pack("!BBHHHBBH", 0x45, 0, size, 7, flags, 63, protocol, 0)
    return fields + source.packed + destination.packed + payload


def v6(
    payload: bytes = b"x" * 8,
    *,
    source: IPAddress = A6,
    destination: IPAddress = B6,
    following: int = UDP,
) -> bytes:
    fields = struct.pack("!IHBB", 6 << 28, len(payload), following, 63)
    return fields + source.packed + destination.packed + payload


def test_checksum_of_rfc_1071s_example() -> None:
    assert icmp.checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D
    assert icmp.checksum(b"\x01") == 0xFEFF  # an odd byte counts as the high one


@pytest.mark.parametrize(
    ("refusal", "kind", "code"),
    [(Refusal.UNREACHABLE, 3, 1), (Refusal.PROHIBITED, 3, 13), (Refusal.TOO_BIG, 3, 4)],
)
def test_ipv4_error_is_whole_and_checksummed(refusal: Refusal, kind: int, code: int) -> None:
    packet = v4(flags=0x4000)
    answer = icmp.error_for(packet, refusal, B4, mtu=1400)
    assert answer is not None
    assert icmp.header(answer) == icmp.Header(B4, A4)
    assert icmp.checksum(answer[:20]) == 0
    assert icmp.checksum(answer[20:]) == 0
    assert (answer[9], answer[20], answer[21]) == (ICMP, kind, code)
    assert struct.unpack_from("!HH", answer, 24) == (0, 1400 if refusal is Refusal.TOO_BIG else 0)
    assert struct.unpack_from("!H", answer, 2) == (len(answer),)
    assert answer[28:] == packet


@pytest.mark.parametrize(
    ("refusal", "kind", "code", "rest"),
    [
        (Refusal.UNREACHABLE, 1, 3, 0),
        (Refusal.PROHIBITED, 1, 1, 0),
        (Refusal.TOO_BIG, 2, 0, 1400),
    ],
)
def test_ipv6_error_is_whole_and_checksummed(
    refusal: Refusal, kind: int, code: int, rest: int
) -> None:
    packet = v6()
    answer = icmp.error_for(packet, refusal, B6, mtu=1400)
    assert answer is not None
    assert icmp.header(answer) == icmp.Header(B6, A6)
    assert (answer[6], answer[40], answer[41]) == (ICMPV6, kind, code)
    assert struct.unpack_from("!I", answer, 44) == (rest,)
    pseudo = answer[8:40] + struct.pack("!II", len(answer) - 40, ICMPV6)
    assert icmp.checksum(pseudo + answer[40:]) == 0
    assert answer[48:] == packet


def test_an_error_quotes_no_more_than_the_rfcs_allow() -> None:
    small = icmp.error_for(v4(b"x" * 1400), Refusal.UNREACHABLE, B4)
    large = icmp.error_for(v6(b"x" * 1400), Refusal.UNREACHABLE, B6)
    assert small is not None
    assert large is not None
    assert (len(small), len(large)) == (576, 1280)


def _fragment_v6(offset: int, following: int = UDP, payload: bytes = b"x" * 8) -> bytes:
    head = struct.pack("!BBHI", following, 0, offset << 3 | 1, 99)
    return v6(head + payload, following=44)


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(v4(b"\x03\x01" + b"\0" * 6, protocol=ICMP), id="icmp error"),
        pytest.param(v4(b"\x2a\x00" + b"\0" * 6, protocol=ICMP), id="unknown icmp type"),
        pytest.param(v4(b"", protocol=ICMP), id="icmp without a type"),
        pytest.param(v4(flags=0x2001), id="later fragment"),
        pytest.param(v4(source=ipaddress.ip_address("0.0.0.0")), id="no source"),
        pytest.param(v4(source=ipaddress.ip_address("127.0.0.1")), id="loopback source"),
        pytest.param(v4(source=ipaddress.ip_address("255.255.255.255")), id="broadcast source"),
        pytest.param(v4(destination=ipaddress.ip_address("224.0.0.1")), id="multicast"),
        pytest.param(v4()[:19], id="short"),
        pytest.param(b"", id="empty"),
        pytest.param(v6(), id="the other family"),
    ],
)
def test_no_answer_in_ipv4_to(packet: bytes) -> None:
    assert icmp.error_for(packet, Refusal.UNREACHABLE, B4) is None


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(v6(b"\x01\x03" + b"\0" * 6, following=ICMPV6), id="icmpv6 error"),
        pytest.param(v6(b"\x89\x00" + b"\0" * 6, following=ICMPV6), id="redirect"),
        pytest.param(v6(b"", following=ICMPV6), id="icmpv6 without a type"),
        pytest.param(
            v6(b"\x3a\x00" + b"\0" * 6 + b"\x01\x03" + b"\0" * 6, following=60),
            id="icmpv6 error behind destination options",
        ),
        pytest.param(v6(b"\x3a\x00", following=0), id="cut off extension header"),
        pytest.param(_fragment_v6(5), id="later fragment"),
        pytest.param(_fragment_v6(0, ICMPV6, b"\x01\x00" + b"\0" * 6), id="error in fragment"),
        pytest.param(v6(source=ipaddress.ip_address("::")), id="no source"),
        pytest.param(v6(source=ipaddress.ip_address("ff02::1")), id="multicast source"),
        pytest.param(v6(destination=ipaddress.ip_address("ff02::1")), id="multicast"),
        pytest.param(v6()[:39], id="short"),
    ],
)
def test_no_answer_in_ipv6_to(packet: bytes) -> None:
    assert icmp.error_for(packet, Refusal.UNREACHABLE, B6) is None


def test_what_may_be_answered_is() -> None:
    echo4 = v4(b"\x08\x00" + b"\0" * 6, protocol=ICMP)
    echo6 = v6(b"\x80\x00" + b"\0" * 6, following=ICMPV6)
    first4 = v4(flags=0x2000)
    assert icmp.error_for(echo4, Refusal.UNREACHABLE, B4) is not None
    assert icmp.error_for(first4, Refusal.UNREACHABLE, B4) is not None
    assert icmp.error_for(echo6, Refusal.UNREACHABLE, B6) is not None
    assert icmp.error_for(_fragment_v6(0), Refusal.UNREACHABLE, B6) is not None


def test_too_big_needs_dont_fragment_in_ipv4_and_reaches_multicast_senders_in_ipv6() -> None:
    assert icmp.error_for(v4(), Refusal.TOO_BIG, B4, mtu=1400) is None
    multicast = v6(destination=ipaddress.ip_address("ff02::1"))
    assert icmp.error_for(multicast, Refusal.TOO_BIG, B6, mtu=1400) is not None
