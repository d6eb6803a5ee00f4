"""Records as they are answered and pushed; those of the peers asked for last are kept as bytes."""

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from wgmap.addresses import host_prefix, prefix_from_bytes
from wgmap.lisp.messages import Action, Eid, Locator, LocatorForm, Record
from wgmap.lisp.records import encode_record
from wgmap_cluster.fsm.rows import LocatorRow, MappingRow, RevocationRow, ServerRow
from wgmap_cluster.responder.follower import Follower
from wgmap_cluster.responder.space import apart, cut, holds
from wgmap_cluster.responder.table import Place, Tables
from wgmap_cluster.responder.written import record_bytes, without_authority

MAX_RECORDS = 128  # of one peer in one answer
MAX_REVOKED = 8  # records of one revocation: the key in any of them takes the whole peer away
MAX_KEPT = 1 << 12  # peers whose records are kept as bytes: more are dearer than writing them
PLAIN_TTL_MIN = 60  # plain LISP clients mis-time more than 68 minutes
UNKNOWN_TTL_MIN = 1
OUTSIDE_TTL_MIN = 15
SERVERS_TTL_MIN = 60


@dataclass(frozen=True, slots=True)
class Encoded:
    """Records as bytes, ready to be joined behind a header."""

    count: int
    data: bytes


class PeerRecords(NamedTuple):
    """All records of a peer, with the A bit."""

    each: tuple[bytes, ...]
    joined: Encoded
    left_out: frozenset[Place]  # mappings with too many holes: only the part asked for is sent

    def encoded(self, *, fresh: bool) -> Encoded:
        """Return them as an answer with authority or without; the latter is rare, and made anew."""
        if fresh:
            return self.joined
        return Encoded(self.joined.count, without_authority(self.each))


_NONE_LEFT_OUT: frozenset[Place] = frozenset()


class Answers:
    """Builds records from the tables and remembers those of peers."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._peers: OrderedDict[str, PeerRecords] = OrderedDict()

    @property
    def _tables(self) -> Tables:
        return self._follower.tables

    def clear(self) -> None:
        """Build all records anew when they are wanted next."""
        self._peers.clear()

    def forget(self, peer: str) -> None:
        """Build the records of a peer anew when they are wanted next."""
        self._peers.pop(peer, None)

    def of_peer(self, peer: str) -> PeerRecords:
        """Return all records of a peer."""
        known = self._peers.get(peer)
        if known is None:
            if len(self._peers) >= MAX_KEPT:
                self._peers.popitem(last=False)
            known = self._peers[peer] = self._build(peer)
        return known

    def _build(self, peer: str) -> PeerRecords:
        records: list[bytes] = []
        left_out: set[Place] = set()
        for place, row in self._tables.mappings_of(peer):
            space = self._tables.space(place.instance)
            pieces = space.pieces(place.prefix) if space else None
            if pieces is None or len(records) + len(pieces) > MAX_RECORDS:
                left_out.add(place)
                continue
            records += [record_bytes(place.instance, piece, row) for piece in pieces]
        joined = Encoded(len(records), b"".join(records))
        return PeerRecords(tuple(records), joined, frozenset(left_out) or _NONE_LEFT_OUT)

    def part(self, place: Place, address: bytes) -> Record:
        """Return the largest part of a mapping around an address without foreign mappings."""
        space = self._tables.space(place.instance)
        assert space is not None, "a place comes from the tables"
        piece = space.narrowed(address, place.prefix)
        return mapping_record(place.instance, piece, space.rows[place.prefix])

    def negative(self, instance: int, address: bytes) -> Record:
        """Return the negative record of an address without a mapping, as wide as it is true."""
        return _negative(*self._hole(instance, address), instance)

    def negative_bytes(self, instance: int, address: bytes, *, fresh: bool) -> Encoded:
        """Return the same encoded: strangers that ask for one hole cost one encoding."""
        return _encoded_negative(*self._hole(instance, address), instance, fresh=fresh)

    def _hole(self, instance: int, address: bytes) -> tuple[bytes, bool]:
        """Return the prefix around an address that holds no mapping, and whether one may come."""
        overlay = self._tables.overlay_of(instance)
        inside = [wide for wide in overlay if holds(wide, address)]
        space = self._tables.space(instance)
        within = max((wide[0] for wide in inside), default=0)
        length = space.empty_around(address, within)[0] if space else within
        if not inside:
            length = max(length, *(apart(o, address) for o in self._fences(overlay)), 0)
        # Without an overlay nothing is outside.
        return cut(address, length), bool(inside or not overlay)

    def _fences(self, overlay: tuple[bytes, ...]) -> list[bytes]:
        prefixes = (*overlay, self._tables.control_prefix)
        return [prefix for prefix in prefixes if prefix]

    def is_control(self, address: bytes) -> bool:
        """Say whether an address lies in the control prefix, where the servers are."""
        return holds(self._tables.control_prefix, address)

    def servers(self, instance: int) -> list[Record]:
        """Return the server set: each control address with its key and underlay endpoint."""
        rows = self._tables.servers.values()
        return [_server_record(instance, row) for row in rows]


def mapping_record(instance: int, prefix: bytes, row: MappingRow) -> Record:
    """Return (part of) a mapping as a record."""
    form = LocatorForm.WGMAP if row.key else LocatorForm.PLAIN
    return Record(
        Eid(prefix_from_bytes(prefix), instance),
        tuple(_locator(locator, row.key, form) for locator in row.locators),
        ttl_min=row.ttl_min,
        authoritative=True,
        version=row.version,
    )


def plain(record: Record) -> Record:
    """Return what a plain LISP client can bear of a record."""
    return Record(
        record.eid,
        tuple(
            Locator(at.address, priority=at.priority, weight=at.weight, form=LocatorForm.PLAIN)
            for at in record.locators
        ),
        ttl_min=min(record.ttl_min, PLAIN_TTL_MIN),
        action=record.action,
        authoritative=record.authoritative,
        version=record.version,
    )


def withdrawn(place: Place, row: MappingRow) -> Record:
    """Return the withdrawal of a mapping: TTL 0. Its key is not revoked: it may come back.

    With the key that it was of, for who holds parts of it only: they go by that.
    """
    eid = Eid(prefix_from_bytes(place.prefix), place.instance)
    at = tuple(_locator(each, row.key, LocatorForm.WGMAP) for each in row.locators[:1] if row.key)
    return Record(eid, at, 0, authoritative=True, version=row.version)


def revocation(row: RevocationRow) -> list[Record]:
    """Return what makes agents drop a revoked peer, and never take its key again.

    Nothing where it never registered a key: then nobody holds it.
    """
    if not row.key:
        return []
    return [_revoked_prefix(row, prefix) for prefix in row.prefixes[:MAX_REVOKED]]


def _revoked_prefix(row: RevocationRow, prefix: bytes) -> Record:
    network = prefix_from_bytes(prefix)
    nowhere = ipaddress.ip_address(bytes(len(prefix) - 1))
    locators = (_revoked(nowhere, row.key),)
    return Record(Eid(network, row.instance), locators, 0, authoritative=True)


def _revoked(address: ipaddress.IPv4Address | ipaddress.IPv6Address, key: bytes) -> Locator:
    return Locator(address, key=key, key_revoked=True, priority=255, weight=0)


def _locator(row: LocatorRow, key: bytes, form: LocatorForm) -> Locator:
    inside = ipaddress.ip_address(row.private_address) if row.private_address else None
    return Locator(
        ipaddress.ip_address(row.address),
        row.port,
        key=key or None,
        priority=row.priority,
        weight=row.weight,
        private_address=inside if key else None,
        form=form,
    )


def _server_record(instance: int, row: ServerRow) -> Record:
    control = ipaddress.ip_address(row.control_address)
    endpoint = Locator(ipaddress.ip_address(row.underlay), row.control_port, key=row.control_key)
    return Record(
        Eid(host_prefix(control), instance),
        (endpoint,),
        ttl_min=SERVERS_TTL_MIN,
        authoritative=True,
    )


def join(records: list[Record], *, authoritative: bool = True) -> Encoded:
    """Encode records one behind the other, all with this A bit."""
    marked = (replace(record, authoritative=authoritative) for record in records)
    return Encoded(len(records), b"".join(map(encode_record, marked)))


def _negative(prefix: bytes, unknown: bool, instance: int) -> Record:
    return Record(
        Eid(prefix_from_bytes(prefix), instance),
        ttl_min=UNKNOWN_TTL_MIN if unknown else OUTSIDE_TTL_MIN,
        action=Action.SEND_MAP_REQUEST if unknown else Action.NATIVELY_FORWARD,
        authoritative=True,
    )


@lru_cache(maxsize=4096)
def _encoded_negative(prefix: bytes, unknown: bool, instance: int, *, fresh: bool) -> Encoded:
    return join([_negative(prefix, unknown, instance)], authoritative=fresh)
