"""What travels inside a light client's tunnel; the handshake is tested against the real thing."""

from ipaddress import IPv6Address

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wgmap.wg.keys import PrivateKey
from wgmap_chaos.load import inner
from wgmap_chaos.load.noise import Handshake, NoiseError, Session, answer

ONE, TWO = IPv6Address("fd77::1"), IPv6Address("fd77::2")


def test_a_datagram_and_back() -> None:
    packet = inner.datagram(ONE, TWO, (7, 4342), b"odd")
    assert inner.payload(packet) == (7, b"odd")
    assert inner.payload(packet + bytes(13)) == (7, b"odd")  # WireGuard pads
    assert inner.payload(b"") is None
    assert inner.payload(b"\x45" + packet[1:]) is None


def test_the_checksum_is_what_receivers_verify() -> None:
    packet = inner.datagram(ONE, TWO, (7, 4342), b"some data")
    length = len(packet) - 40
    words = packet[8:40] + length.to_bytes(4) + (17).to_bytes(4) + packet[40:] + bytes(length % 2)
    total = sum(int.from_bytes(words[at : at + 2]) for at in range(0, len(words), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF


def test_sessions_count_and_refuse_what_is_not_theirs() -> None:
    one, two = (ChaCha20Poly1305(bytes([n]) * 32) for n in (1, 2))
    ours, theirs = Session(5, 9, one, two), Session(9, 5, two, one)
    first, second = ours.seal(b"packet"), ours.seal(b"packet")
    assert first != second
    assert theirs.open(second).rstrip(b"\0") == theirs.open(first).rstrip(b"\0") == b"packet"
    for wrong in (b"", first[:-1], first[:20] + b"x" + first[21:], theirs.seal(b"")):
        with pytest.raises(NoiseError):
            theirs.open(wrong)


def test_an_initiation_has_its_form_and_a_wrong_response_is_refused() -> None:
    own, peer = PrivateKey.generate(), PrivateKey.generate()
    handshake = Handshake(own, peer.public, 1.5)
    assert len(handshake.message) == 148
    assert handshake.message[:4] == b"\1\0\0\0"
    for wrong in (b"", bytes(92), b"\2" + bytes(91)):
        with pytest.raises(NoiseError):
            handshake.finish(wrong)


def test_both_sides_of_a_handshake_have_one_session() -> None:
    own, peer = PrivateKey.generate(), PrivateKey.generate()
    handshake = Handshake(own, peer.public, 1.5)
    answered = answer(peer, handshake.message, 77)
    assert answered.initiator == own.public
    ours = handshake.finish(answered.response)
    for one, other in ((ours, answered.session), (answered.session, ours)):
        assert other.open(one.seal(b"packet")).rstrip(b"\0") == b"packet"


def test_an_initiation_for_another_or_not_genuine_is_not_answered() -> None:
    own, peer = PrivateKey.generate(), PrivateKey.generate()
    message = Handshake(own, peer.public, 1.5).message
    with pytest.raises(NoiseError):
        answer(PrivateKey.generate(), message, 1)
    for at in (8, 50, 100):
        with pytest.raises(NoiseError):
            answer(peer, message[:at] + bytes([message[at] ^ 1]) + message[at + 1 :], 1)
    for wrong in (b"", message[:-1], b"\2" + message[1:]):
        with pytest.raises(NoiseError):
            answer(peer, wrong, 1)


def test_a_wrong_response_does_not_end_a_handshake() -> None:
    own, peer = PrivateKey.generate(), PrivateKey.generate()
    handshake = Handshake(own, peer.public, 1.5)
    right = answer(peer, handshake.message, 77).response
    with pytest.raises(NoiseError):
        handshake.finish(right[:50] + bytes([right[50] ^ 1]) + right[51:])
    assert handshake.finish(right).peer_index == 77
