"""Records as they are answered and pushed, of peers, of servers, and where there is nothing."""

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from wgmap.addresses import host_prefix, prefix_from_bytes
from wgmap.lisp.messages import Action, Eid, Locator, LocatorForm, Record
from wgmap.lisp.reader import Reader
from wgmap.lisp.records import encode_record, read_record
from wgmap_cluster.fsm.rows import RevocationRow, ServerRow
from wgmap_cluster.responder.follower import Follower
from wgmap_cluster.responder.mappings import Mapping, Peer
from wgmap_cluster.responder.space import apart, cut, holds
from wgmap_cluster.responder.table import Tables
from wgmap_cluster.responder.written import narrowed, without_authority

MAX_RECORDS = 128  # of one peer in one answer
MAX_REVOKED = 8  # records of one revocation: the key in any of them takes the whole peer away
MAX_KEPT = 1 << 12  # peers with wide prefixes whose pieces are remembered
PLAIN_TTL_MIN = 60  # plain LISP clients mis-time more than 68 minutes
UNKNOWN_TTL_MIN = 1
OUTSIDE_TTL_MIN = 15
SERVERS_TTL_MIN = 60


@dataclass(slots=True)
class Encoded:
    """Records as bytes, ready to be joined behind a header."""

    count: int
    data: bytes


class PeerRecords(NamedTuple):
    """All records of a peer, with the A bit."""

    each: tuple[bytes, ...]
    joined: Encoded
    left_out: frozenset[Mapping]  # with too many holes: only the part asked for is sent

    def encoded(self, *, fresh: bool) -> Encoded:
        """Return them as an answer with authority or without; the latter is rare, and made anew."""
        if fresh:
            return self.joined
        return Encoded(self.joined.count, without_authority(self.each))


_NONE_LEFT_OUT: frozenset[Mapping] = frozenset()


class Answers:
    """Puts answers together from the tables, and remembers what is left of wide prefixes."""

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

    def of_peer(self, peer: Peer) -> PeerRecords:
        """Return all records of a peer."""
        known = self._peers.get(peer.name)
        if known is None:
            known = self._of_hosts(peer)
        if known is None:
            if len(self._peers) >= MAX_KEPT:
                self._peers.popitem(last=False)
            known = self._peers[peer.name] = self._cut_out(peer)
        return known

    def _of_hosts(self, peer: Peer) -> PeerRecords | None:
        """Return the records of a peer whose mappings are hosts, as most are; else None.

        Nothing lies inside a host, so they are sent as they are kept.
        """
        mappings = list(peer.mappings())
        if len(mappings) > MAX_RECORDS or not all(mapping.is_host for mapping in mappings):
            return None
        return _together([mapping.record for mapping in mappings], _NONE_LEFT_OUT)

    def _cut_out(self, peer: Peer) -> PeerRecords:
        records: list[bytes] = []
        left_out: set[Mapping] = set()
        for mapping in peer.mappings():
            place = mapping.place
            space = self._tables.space(place.instance)
            pieces = space.pieces(place.prefix) if space else None
            if pieces is None or len(records) + len(pieces) > MAX_RECORDS:
                left_out.add(mapping)
                continue
            records += [narrowed(mapping.record, piece) for piece in pieces]
        return _together(records, frozenset(left_out))

    def part(self, mapping: Mapping, address: bytes) -> Record:
        """Return the largest part of a mapping around an address without foreign mappings."""
        place = mapping.place
        space = self._tables.space(place.instance)
        assert space is not None, "a mapping stands in one"
        piece = space.narrowed(address, place.prefix)
        return read_record(Reader(narrowed(mapping.record, piece)))

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
            length = max(length, *(_beside(o, address) for o in self._fences(overlay)), 0)
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


def _beside(fence: bytes, address: bytes) -> int:
    """Return the length at which a prefix around an address is all inside a fence, or all outside.

    Inside: the control prefix, where no server is known.
    """
    return fence[0] if holds(fence, address) else apart(fence, address)


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


def _together(records: list[bytes], left_out: frozenset[Mapping]) -> PeerRecords:
    return PeerRecords(tuple(records), Encoded(len(records), b"".join(records)), left_out)


def withdrawn(record: bytes) -> Record:
    """Return the withdrawal of what was a mapping's record: TTL 0.

    Its key is not revoked: it may come back. With the key that it was of, for who holds parts of it
    only: they go by that.
    """
    was = read_record(Reader(record))
    return replace(was, locators=tuple(at for at in was.locators[:1] if at.key), ttl_min=0)


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
