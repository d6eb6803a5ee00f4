"""From a Map-Register to the command that is proposed, or the reason why it is refused.

Pure. Who registers is decided by the source address alone, which the control tunnel proves; a
plain LISP client must prove itself by its LISP key as well. What it may register is decided by
the prefixes that it was enrolled with, and where it may point by the RLOC rule.
"""

import ipaddress
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from wgmap.addresses import IPAddress, IPNetwork, prefix_from_bytes, prefix_to_bytes
from wgmap.lisp.auth import verify
from wgmap.lisp.codec import decode
from wgmap.lisp.messages import (
    AuthAlgorithm,
    CodecError,
    Locator,
    MapRegister,
    Record,
)
from wgmap_cluster.fsm import registration
from wgmap_cluster.fsm.commands import MAX_LOCATORS, MAX_PREFIXES, Offer, Register
from wgmap_cluster.fsm.results import Reason, RefusedError
from wgmap_cluster.fsm.rows import LocatorRow, PeerRow
from wgmap_cluster.fsm.state import State

MAX_TTL_MIN = 60 * 24 * 31
WITHDRAWS = 0


class Refusal(StrEnum):
    """Why a register was refused; each has a counter ``register.refused....`` of its own."""

    MALFORMED = "malformed"
    NOT_A_REGISTER = "not_a_register"
    UNKNOWN_SOURCE = "unknown_source"
    REVOKED = "revoked"
    AUTHENTICATION = "authentication"
    NOT_OWNER = "not_owner"
    NO_LOCATOR = "no_locator"  # none of a record's locators satisfies the RLOC rule
    INVALID = "invalid"
    LIMIT = "limit"


_BY_REASON = {
    Reason.UNKNOWN_PEER: Refusal.UNKNOWN_SOURCE,
    Reason.NOT_FOUNDED: Refusal.UNKNOWN_SOURCE,
    Reason.REVOKED: Refusal.REVOKED,
    Reason.NOT_OWNER: Refusal.NOT_OWNER,
    Reason.LIMIT: Refusal.LIMIT,
}


class AdmissionError(Exception):
    """A register is not admitted; it is counted, and never answered.

    RFC 9301 has no negative answer to a Map-Register, and an answer to a source that proved
    nothing would only tell it what exists.
    """

    def __init__(self, refusal: Refusal, detail: str = "") -> None:
        self.refusal = refusal
        self.detail = detail
        super().__init__(f"{refusal}: {detail}")


@dataclass(frozen=True, slots=True)
class Claim:
    """A register whose sender is known; what it says is not checked yet."""

    peer: str
    row: PeerRow
    datagram: bytes
    message: MapRegister

    @property
    def asked(self) -> frozenset[IPAddress]:
        """The locators that are right only if the control tunnel comes from there."""
        allowed = _networks(self.row)
        return frozenset(
            locator.address
            for record in self.message.records
            for locator in record.locators
            if not _inside(locator.address, allowed)
        )


@dataclass(frozen=True, slots=True)
class Admitted:
    """A register that may be proposed: what was said, by whom, and what is taken of it."""

    peer: str
    row: PeerRow
    datagram: bytes
    message: MapRegister
    command: Register
    dropped: int  # locators that did not satisfy the RLOC rule


def translate(reason: Reason) -> Refusal:
    """Return the refusal to count for what the state machine says."""
    return _BY_REASON.get(reason, Refusal.INVALID)


def identify(state: State, source: IPAddress) -> tuple[str, PeerRow]:
    """Return the peer whose control address the source is; raises AdmissionError."""
    name = state.peer_by_address(source.packed)
    if name is None:
        raise AdmissionError(Refusal.UNKNOWN_SOURCE, str(source))
    row = state.peers[name]
    if row.revoked:
        raise AdmissionError(Refusal.REVOKED, name)
    return name, row


def claim(state: State, source: IPAddress, datagram: bytes) -> Claim:
    """Find out who registers; raises AdmissionError."""
    name, row = identify(state, source)
    message = _read(datagram)
    _authenticate(name, row, datagram, message)
    return Claim(name, row, datagram, message)


def admit(state: State, claimed: Claim, outer: Collection[IPAddress]) -> Admitted:
    """Check what a register says and build its command; raises AdmissionError.

    ``outer`` is where the peer's control tunnel comes from at present, empty where that is not
    known: then only enrolled locators are taken.
    """
    name, row, message = claimed.peer, claimed.row, claimed.message
    instance = _one_instance(name, message)
    rule = _RlocRule(row, outer)
    offers = tuple(_offer(name, record, rule) for record in message.records)
    address, key = row.control_address, _one_key(name, message)
    command = Register(address, message.nonce, instance, key, offers)
    try:
        registration.find_owner(state, command)
    except RefusedError as error:
        refused = error.refused
        raise AdmissionError(translate(refused.reason), refused.detail) from error
    return Admitted(name, row, claimed.datagram, message, command, rule.dropped)


def _read(datagram: bytes) -> MapRegister:
    try:
        message = decode(datagram)
    except CodecError as error:
        raise AdmissionError(Refusal.MALFORMED, str(error)) from error
    if not isinstance(message, MapRegister):
        raise AdmissionError(Refusal.NOT_A_REGISTER, type(message).__name__)
    return message


def _authenticate(name: str, row: PeerRow, datagram: bytes, message: MapRegister) -> None:
    if row.lisp_key:
        legacy = row.lisp_auth == AuthAlgorithm.HMAC_SHA1
        good = verify(datagram, message, row.lisp_key, legacy_sha1=legacy)
    else:
        good = message.authentication.algorithm == AuthAlgorithm.NONE
    if not good:
        algorithm = message.authentication.algorithm
        raise AdmissionError(Refusal.AUTHENTICATION, f"{name}: algorithm {algorithm}")


def _one_instance(name: str, message: MapRegister) -> int:
    if not 0 < len(message.records) <= MAX_PREFIXES:
        raise AdmissionError(Refusal.LIMIT, f"{name}: {len(message.records)} records")
    instances = {record.eid.instance for record in message.records}
    if len(instances) != 1:
        raise AdmissionError(Refusal.INVALID, f"{name}: several instances in one register")
    return instances.pop()


def _one_key(name: str, message: MapRegister) -> bytes:
    keys = {locator.key or b"" for record in message.records for locator in record.locators}
    if len(keys) > 1:
        raise AdmissionError(Refusal.INVALID, f"{name}: several keys in one register")
    return keys.pop() if keys else b""


def _offer(name: str, record: Record, rule: "_RlocRule") -> Offer:
    prefix = prefix_to_bytes(record.eid.prefix)
    if record.ttl_min == WITHDRAWS:
        return Offer(prefix, (), WITHDRAWS)
    rows = tuple(dict.fromkeys(rule.accepted(record)))  # in the order that the peer gave
    if not rows:
        raise AdmissionError(Refusal.NO_LOCATOR, f"{name}: {record.eid.prefix}")
    if len(rows) > MAX_LOCATORS:
        raise AdmissionError(Refusal.LIMIT, f"{name}: {len(rows)} locators")
    return Offer(prefix, rows, min(record.ttl_min, MAX_TTL_MIN))


class _RlocRule:
    """Nobody aims the fleet at a victim: the tunnel's own outer address, or an enrolled one."""

    def __init__(self, row: PeerRow, outer: Collection[IPAddress]) -> None:
        self._outer = outer
        self._allowed = _networks(row)
        self.dropped = 0

    def accepted(self, record: Record) -> Iterator[LocatorRow]:
        for locator in record.locators:
            if self._good(locator):
                yield _row(locator)
            else:
                self.dropped += 1

    def _good(self, locator: Locator) -> bool:
        address = locator.address
        if locator.key_revoked or not 0 < locator.port < 65536:
            return False
        if address.is_multicast or address.is_unspecified:
            return False
        return address in self._outer or _inside(address, self._allowed)


def _networks(row: PeerRow) -> list[IPNetwork]:
    return [prefix_from_bytes(each) for each in row.endpoint_allow]


def _inside(address: IPAddress, prefixes: Iterable[IPNetwork]) -> bool:
    return any(address in prefix for prefix in prefixes)


def _row(locator: Locator) -> LocatorRow:
    """Keep of a private address only what can be one: it is told to others as a target."""
    inside = locator.private_address
    private = inside.packed if inside is not None and inside.is_private else b""
    return LocatorRow(
        locator.address.packed, locator.port, locator.priority, locator.weight, private
    )


def as_address(text: str) -> IPAddress:
    """Read a source address as the kernel gives it; an IPv4-mapped one becomes IPv4."""
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if address.version == 6 else None
    return mapped if mapped is not None else address
