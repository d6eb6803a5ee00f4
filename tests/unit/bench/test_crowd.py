"""Hosts of a crowd: who they are, and what they send back."""

import struct
from ipaddress import IPv4Address

import pytest
from crowd.data import Tunnels, echo
from crowd.members import MOST, Member, enrolments, members

from wgmap.addresses import control_address
from wgmap.wg.keys import PrivateKey
from wgmap_agent.engine.packets import echo_request
from wgmap_chaos.lab.topology import CONTROL_PREFIX
from wgmap_chaos.load.noise import Handshake

NEAR, FAR = IPv4Address("10.66.1.1"), IPv4Address("10.66.128.7")


def total(data: bytes) -> int:
    """Sum of ones' complement (RFC 1071): all ones where a checksum in it is right."""
    value: int = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) // 2 * 2]))
    value += data[-1] << 8 if len(data) % 2 else 0
    while value >> 16:
        value = (value & 0xFFFF) + (value >> 16)
    return value


def udp(data: bytes) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 28 + len(data), 1, 0, 64, 17, 0)
    head += NEAR.packed + FAR.packed
    head = head[:10] + (~total(head) & 0xFFFF).to_bytes(2) + head[12:]
    return head + struct.pack("!HHHH", 5000, 9000, 8 + len(data), 0) + data


def test_udp_goes_back_to_its_sender() -> None:
    back = echo(udp(b"number") + bytes(6))  # WireGuard pads
    assert back is not None
    assert (back[12:16], back[16:20]) == (FAR.packed, NEAR.packed)
    assert struct.unpack("!HH", back[20:24]) == (9000, 5000)
    assert back[28:] == b"number"
    assert total(back[:20]) == 0xFFFF


def test_an_echo_request_is_answered_with_a_right_checksum() -> None:
    back = echo(echo_request(NEAR, FAR, 7))
    assert back is not None
    assert back[20:22] == b"\0\0"
    assert total(back[20:]) == 0xFFFF


@pytest.mark.parametrize("packet", [b"", bytes(40), b"\x45" + bytes(39), b"\x60" + bytes(60)])
def test_nothing_else_is_answered(packet: bytes) -> None:
    assert echo(packet) is None


def test_two_processes_agree_on_who_a_member_is() -> None:
    one, other = Member(7), Member(7)
    assert bytes(one.control_key.public) == bytes(other.control_key.public)
    assert bytes(one.control_key.public) != bytes(one.data_key.public)
    assert one.control == control_address(CONTROL_PREFIX, one.control_key.public)
    assert len({place for member in members(0, 300) for place in member.places}) == 600
    bodies = list(enrolments(members(0, 250), anywhere=True))
    assert [len(body["peers"]) for body in bodies] == [100, 100, 50]  # type: ignore[arg-type]
    with pytest.raises(AssertionError):
        members(MOST, 1)


def test_a_handshake_is_answered_and_what_comes_in_it_sent_back() -> None:
    sent: list[tuple[bytes, bytes, tuple[str, int]]] = []
    tunnels = Tunnels(lambda *args: sent.append(args))
    member, own, there = Member(3), PrivateKey.generate(), ("192.0.2.11", 51820)
    here = member.places[1].packed
    handshakes = [Handshake(own, member.data_key.public, number + 1.0) for number in range(5)]
    for handshake in handshakes:  # sessions are bounded: the last ones are known
        tunnels.hear(member, here, handshake.message, there)
    session = handshakes[-1].finish(sent.pop()[1])
    sent.clear()
    tunnels.hear(member, here, session.seal(udp(b"x")), there)
    source, data, target = sent.pop()
    assert (source, target) == (here, there)
    assert session.open(data)[28:29] == b"x"
    tunnels.hear(member, here, b"\4garbage", there)
    tunnels.hear(member, here, session.seal(b""), there)
    assert not sent
    assert (tunnels.counts.handshakes, tunnels.counts.packets, tunnels.counts.refused) == (5, 1, 1)
