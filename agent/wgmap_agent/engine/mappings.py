"""What the records of a message say, after everything that must be refused is taken out.

Refused: another instance, prefixes outside the overlay or overlapping our own, our own key,
locators that no WireGuard peer can be made of. Only servers can push; these checks keep even a
confused server from turning our traffic elsewhere.
"""

from collections.abc import Container, Iterable
from dataclasses import dataclass, field

from wgmap.addresses import Endpoint, IPNetwork
from wgmap.lisp.messages import Action, Locator, Record
from wgmap.wg.keys import KEY_BYTES, PublicKey
from wgmap_agent.engine.counters import Counters
from wgmap_agent.engine.locators import UNUSABLE_PRIORITY, ways
from wgmap_agent.engine.packets import is_unicast, is_within
from wgmap_agent.engine.types import Identity


@dataclass(frozen=True, slots=True)
class Offered:
    """One prefix of a peer, as a message has it."""

    prefix: IPNetwork
    version: int
    ttl_s: float
    authoritative: bool


@dataclass(slots=True)
class PeerOffer:
    """One peer, with every prefix that the message has for it."""

    key: PublicKey
    endpoint: Endpoint  # the first of its ways
    prefixes: list[Offered] = field(default_factory=list)
    ways: tuple[Endpoint, ...] = ()  # every endpoint that it has, the one to take first


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A prefix that is gone (TTL 0), and where it says so the key whose it was."""

    prefix: IPNetwork
    version: int
    key: PublicKey | None = None


@dataclass(slots=True)
class Reading:
    """Everything usable in the records of one message."""

    peers: dict[PublicKey, PeerOffer] = field(default_factory=dict)
    withdrawn: list[Withdrawn] = field(default_factory=list)
    revoked: set[PublicKey] = field(default_factory=set)
    negative: list[Record] = field(default_factory=list)


def overlaps(one: IPNetwork, other: IPNetwork) -> bool:
    """Say whether two prefixes of any family share an address."""
    if one.version != other.version:
        return False
    shift = one.max_prefixlen - min(one.prefixlen, other.prefixlen)
    return int(one.network_address) >> shift == int(other.network_address) >> shift


def is_inside(prefix: IPNetwork, wide: IPNetwork) -> bool:
    """Say whether a prefix lies in another."""
    return prefix.prefixlen >= wide.prefixlen and overlaps(prefix, wide)


class Reader:
    """Reads records for one agent and counts what it refuses."""

    def __init__(
        self, identity: Identity, counters: Counters, revoked: Container[PublicKey] = ()
    ) -> None:
        """``revoked``: keys that are refused whoever offers them."""
        self._identity = identity
        self._counters = counters
        self._revoked = revoked
        self._own_keys = {identity.data_key}
        self._chooser = identity.control_address.packed
        self._forbidden = identity.prefixes if identity.marked else identity.overlay

    def use_key(self, key: PublicKey) -> None:
        """Know another key as our own, beside those of before."""
        self._own_keys.add(key)

    def read(self, records: Iterable[Record], families: frozenset[int]) -> Reading:
        """Sort records out; ``families``: IP versions of our own underlay (empty: any)."""
        reading = Reading()
        for record in records:
            reason = self._read(record, families, reading)
            if reason is not None:
                self._counters.add(f"record.refused_{reason}")
        return reading

    def is_own(self, record: Record) -> bool:
        """Say whether a record is of one of the prefixes that we register."""
        eid = record.eid
        return eid.instance == self._identity.instance and eid.prefix in self._identity.prefixes

    def _read(self, record: Record, families: frozenset[int], reading: Reading) -> str | None:
        reason = self._refusal(record)
        if reason is not None:
            return reason
        revoked = {PublicKey(one.key) for one in record.locators if one.key and one.key_revoked}
        reading.revoked |= revoked - self._own_keys
        if revoked and not record.version:
            return None  # the key alone counts: the prefix may be somebody else's by now
        if record.ttl_min == 0 or revoked:
            reading.withdrawn.append(_withdrawn(record))
            return None
        if not record.locators:
            reading.negative.append(record)
            return None
        return self._read_locators(record, families, reading)

    def _refusal(self, record: Record) -> str | None:
        prefix = record.eid.prefix
        if record.eid.instance != self._identity.instance:
            return "other_instance"
        if not any(is_inside(prefix, wide) for wide in self._identity.overlay):
            # A negative answer may be about more than the overlay: it installs nothing.
            return None if record.action and not record.locators else "outside_overlay"
        if (
            record.ttl_min
            and record.locators
            and any(overlaps(prefix, own) for own in self._identity.prefixes)
        ):
            return "own_prefix"
        return None

    def _read_locators(
        self, record: Record, families: frozenset[int], reading: Reading
    ) -> str | None:
        usable = self._usable(record.locators, families)
        key = PublicKey(usable[0].key) if usable and usable[0].key else None
        if key is None:
            return "no_usable_locator"
        if key in self._own_keys:
            return "own_key"
        if key in self._revoked:
            return "revoked_key"
        found = ways(usable, self._chooser)
        offer = reading.peers.setdefault(key, PeerOffer(key, found[0], ways=found))
        ttl_s = record.ttl_min * 60.0
        offered = Offered(record.eid.prefix, record.version, ttl_s, record.authoritative)
        offer.prefixes.append(offered)
        return None

    def _usable(self, locators: tuple[Locator, ...], families: frozenset[int]) -> list[Locator]:
        """Return what a WireGuard peer can use, of the families that we have, of one key."""
        usable = [one for one in locators if self._is_usable(one)]
        reachable = [one for one in usable if one.address.version in families]
        taken = sorted(reachable or usable, key=lambda one: one.priority)
        return [one for one in taken if one.key == taken[0].key]

    def _is_usable(self, locator: Locator) -> bool:
        return (
            locator.priority != UNUSABLE_PRIORITY
            and locator.key is not None
            and len(locator.key) == KEY_BYTES
            and 0 < locator.port < 65536
            and is_unicast(locator.address)
            # Inside the overlay the tunnel would carry itself.
            and not is_within(locator.address, self._forbidden)
        )


def _withdrawn(record: Record) -> Withdrawn:
    keys = (one.key for one in record.locators if one.key and len(one.key) == KEY_BYTES)
    key = next(keys, None)
    return Withdrawn(record.eid.prefix, record.version, None if key is None else PublicKey(key))


def is_denial(record: Record) -> bool:
    """Say whether a negative answer forbids, rather than not knowing."""
    return record.action in (Action.POLICY_DENIED, Action.AUTHENTICATION_FAILURE)
