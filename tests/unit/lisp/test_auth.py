"""Signing and verifying, and what must not pass."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from wgmap.lisp.auth import sign, sign_like, verify
from wgmap.lisp.codec import Authenticated, decode, encode
from wgmap.lisp.messages import (
    AuthAlgorithm,
    Authentication,
    Eid,
    Locator,
    LocatorForm,
    MapNotify,
    MapNotifyAck,
    MapRegister,
    MapReply,
    Record,
    XtrId,
)

SECRET = b"a secret"
RECORD = Record(
    Eid(IPv4Network("10.0.0.2/32")),
    (Locator(IPv4Address("192.0.2.1"), form=LocatorForm.PLAIN),),
)
XTR = XtrId(bytes(16), bytes(8))
KINDS = [(1, None), (2, None), (2, 32), (3, None)]
REGISTER = MapRegister(7, (RECORD,))
NOTIFY = MapNotify(7, (RECORD,))
MESSAGES: list[Authenticated] = [REGISTER, NOTIFY, MapNotifyAck(7, (RECORD,))]


def signed(message: Authenticated, algorithm: int, length: int | None = None) -> bytes:
    return sign(encode(message), 1, algorithm, SECRET, length=length)


def passes(datagram: bytes, secret: bytes = SECRET, *, legacy_sha1: bool = True) -> bool:
    message = decode(datagram)
    assert isinstance(message, MapRegister | MapNotify | MapNotifyAck)
    return verify(datagram, message, secret, legacy_sha1=legacy_sha1)


@pytest.mark.parametrize(("algorithm", "length"), KINDS)
@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_signed_passes_and_every_change_is_seen(
    message: Authenticated, algorithm: int, length: int | None
) -> None:
    datagram = signed(message, algorithm, length)

    assert passes(datagram)
    assert not passes(datagram, b"another secret")
    for position in (*range(4, 12), *range(16, len(datagram))):
        changed = bytearray(datagram)
        changed[position] ^= 1
        try:
            assert not passes(bytes(changed)), position
        except ValueError:
            continue  # no message any more


def test_type_is_covered() -> None:
    for algorithm, length in KINDS:
        register = signed(MapRegister(7, (RECORD,), want_notify=False), algorithm, length)
        assert not passes(b"\x40" + register[1:])


def test_xtr_id_is_not_covered() -> None:
    datagram = signed(MapRegister(7, (RECORD,), xtr=XTR), AuthAlgorithm.HMAC_SHA256_128)

    assert passes(datagram[:-1] + b"\x01")


def test_sha1_must_be_asked_for() -> None:
    datagram = signed(REGISTER, AuthAlgorithm.HMAC_SHA1)

    assert passes(datagram)
    assert not passes(datagram, legacy_sha1=False)


@pytest.mark.parametrize(
    "authentication",
    [
        Authentication(),
        Authentication(1, 2, b""),
        Authentication(1, 2, bytes(15)),
        Authentication(1, 1, bytes(12)),
        Authentication(1, 3, bytes(32)),
        Authentication(1, 9, bytes(16)),
    ],
    ids=str,
)
def test_other_kinds_never_pass(authentication: Authentication) -> None:
    assert not passes(encode(replace(REGISTER, authentication=authentication)))


def test_answer_is_signed_in_the_kind_of_the_question() -> None:
    for algorithm, length in KINDS:
        register = decode(signed(REGISTER, algorithm, length))
        assert isinstance(register, MapRegister)
        notify = decode(sign_like(encode(NOTIFY), register.authentication, SECRET))
        assert isinstance(notify, MapNotify)
        assert notify.authentication.algorithm == algorithm
        assert notify.authentication.key_id == register.authentication.key_id
        assert len(notify.authentication.data) == len(register.authentication.data)


@pytest.mark.parametrize(("algorithm", "length"), [(0, None), (4, None), (1, 12), (2, 20), (3, 32)])
def test_kinds_that_are_not_written(algorithm: int, length: int | None) -> None:
    with pytest.raises(ValueError, match=f"algorithm {algorithm}"):
        signed(REGISTER, algorithm, length)


def test_messages_without_authentication_are_not_signed() -> None:
    for datagram in (b"", encode(MapReply(1, (RECORD,)))):
        with pytest.raises(ValueError, match="not a message that carries"):
            sign(datagram, 1, 2, SECRET)
