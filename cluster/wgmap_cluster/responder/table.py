"""The responder's copy of the replicated tables, and what is looked up in it."""

import ipaddress
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from socket import AF_INET, AF_INET6, inet_ntop

from wgmap.addresses import prefix_to_bytes
from wgmap_cluster.fsm.rows import (
    Change,
    InstanceRow,
    MappingRow,
    Meta,
    PeerRow,
    RevocationRow,
    Row,
    ServerRow,
    Table,
)
from wgmap_cluster.responder.mappings import NOBODY, Kind, Mapping, Peer, Place
from wgmap_cluster.responder.space import Space
from wgmap_cluster.responder.written import record_bytes


class Tables:
    """Peers, mappings, servers and meta as of ``index``."""

    def __init__(self) -> None:
        self.index = 0
        self.servers: dict[str, ServerRow] = {}
        self.revocations: dict[int, RevocationRow] = {}
        self._revoked: list[int] = []  # the numbers of revocations, ascending
        self.overlay: tuple[bytes, ...] = ()
        self.instances: dict[int, InstanceRow] = {}
        self.control_prefix = b""
        self.cluster_id: Row | None = None
        self._spaces: dict[int, Space] = {}
        self._peers: dict[str, Peer] = {}
        self._enrolled = 0
        self._by_address: dict[str, Peer] = {}

    # ---------------------------------------------------------------------------- changing

    def apply(self, change: Change) -> None:
        """Set or remove one row (of a type and form that the feed has checked)."""
        key, row = change.key, change.row
        match change.table:
            case Table.MAPPINGS if isinstance(key, tuple):
                self._set_mapping(Place(*key), row if isinstance(row, MappingRow) else None)
            case Table.PEERS if isinstance(key, str):
                self._set_peer(key, row if isinstance(row, PeerRow) else None)
            case Table.SERVERS if isinstance(key, str):
                _put(self.servers, key, row if isinstance(row, ServerRow) else None)
            case Table.REVOCATIONS if isinstance(key, int):
                self._set_revocation(key, row if isinstance(row, RevocationRow) else None)
            case Table.INSTANCES if isinstance(key, int):
                _put(self.instances, key, row if isinstance(row, InstanceRow) else None)
            case Table.META if isinstance(key, str):
                self._set_meta(key, row)
            case _:
                raise ValueError(f"a row of {change.table.name} under {key!r:.60}")

    def _set_mapping(self, place: Place, row: MappingRow | None) -> None:
        old = self.mapping(place)
        if old is not None and (row is None or old.peer.name != row.peer):
            self._spaces[place.instance].remove(place.prefix)
            old.peer.part(old)
            self._forget_if_empty(old.peer)
            old = None
        if row is None:
            return
        record = record_bytes(place.instance, place.prefix, row)
        if old is not None:
            old.record = record
            old.peer.judge()
            return
        mapping = Mapping(self._known(row.peer), record)
        self._spaces.setdefault(place.instance, Space()).put(place.prefix, mapping)
        mapping.peer.join(mapping)

    def _set_peer(self, name: str, row: PeerRow | None) -> None:
        peer = self._known(name)
        if self._by_address.get(peer.address) is peer:
            del self._by_address[peer.address]
        self._enrolled += (row is not None) - peer.kind.enrolled
        if row is None:
            peer.enrol("", NOBODY)
        else:
            keyed = bool(row.control_key) and not row.lisp_key
            address = _text(row.control_address)
            peer.enrol(address, Kind(True, row.revoked, row.instance, keyed))
            if not row.revoked:
                self._by_address[address] = peer
        self._forget_if_empty(peer)

    def _known(self, name: str) -> Peer:
        known = self._peers.get(name)
        if known is None:
            known = self._peers[name] = Peer(name)
        return known

    def _forget_if_empty(self, peer: Peer) -> None:
        if peer.first is None and not peer.kind.enrolled:
            del self._peers[peer.name]

    def _set_revocation(self, number: int, row: RevocationRow | None) -> None:
        at = bisect_left(self._revoked, number)
        known = self._revoked[at : at + 1] == [number]
        if row is not None and not known:
            self._revoked.insert(at, number)  # nearly always at the end
        elif row is None and known:  # the state came back from a backup
            del self._revoked[at]
        _put(self.revocations, number, row)

    def _set_meta(self, key: str, row: Row | None) -> None:
        if key == Meta.OVERLAY:
            self.overlay = _prefixes(row)
        elif key == Meta.CONTROL_PREFIX:
            self.control_prefix = next(iter(_prefixes(row)), b"")
        elif key == Meta.CLUSTER_ID:
            self.cluster_id = row

    def dismantle(self, count: int) -> bool:
        """Let go of so many peers with all that is theirs; False where none is left."""
        for _ in range(count):
            name = next(reversed(self._peers), None)
            if name is None:
                return False
            for place in [mapping.place for mapping in self.mappings_of(name)]:
                self._set_mapping(place, None)
            if name in self._peers:
                self._set_peer(name, None)
        return True

    # ----------------------------------------------------------------------------- looking

    def peer_at(self, address: str) -> Peer | None:
        """Return the enrolled, unrevoked peer with this control address, as text."""
        return self._by_address.get(address)

    def peer(self, name: str) -> Peer | None:
        """Return a peer that is enrolled (it may be revoked)."""
        known = self._peers.get(name)
        return known if known is not None and known.kind.enrolled else None

    def holder(self, name: str) -> Peer | None:
        """Return a peer that is enrolled, or that has mappings."""
        return self._peers.get(name)

    @property
    def last_revocation(self) -> int:
        """The number of the last revocation, 0 before the first."""
        return self._revoked[-1] if self._revoked else 0

    def revoked_after(self, number: int, most: int) -> list[int]:
        """Return the numbers of the first ``most`` revocations after a number, ascending.

        Numbers have gaps: a restore goes on far above those of its backup.
        """
        first = bisect_right(self._revoked, number)
        return self._revoked[first : first + most]

    def revoked_before(self, number: int) -> int:
        """Return the number of the revocation before that one, 0 where it was the first."""
        at = bisect_left(self._revoked, number)
        return self._revoked[at - 1] if at else 0

    def overlay_of(self, instance: int) -> tuple[bytes, ...]:
        """Return the overlay's prefixes in an instance."""
        row = self.instances.get(instance)
        return (row.overlay if row is not None else ()) or self.overlay

    def space(self, instance: int) -> Space | None:
        """Return the mappings of an instance; None where there are none."""
        return self._spaces.get(instance)

    def mapping(self, place: Place) -> Mapping | None:
        """Return the mapping of a place."""
        space = self._spaces.get(place.instance)
        return space.at(place.prefix) if space else None

    def match(self, instance: int, address: bytes) -> Mapping | None:
        """Return the mapping that serves an address."""
        space = self._spaces.get(instance)
        if space is None:
            return None
        family = space.families[len(address)]
        return family.hosts.get(address) or family.match(address)  # nearly always the first

    def mappings_of(self, peer: str) -> Iterator[Mapping]:
        """Yield the mappings of a peer."""
        known = self._peers.get(peer)
        return known.mappings() if known is not None else iter(())

    def registered_peers(self) -> list[Peer]:
        """Return all peers that have a mapping."""
        return [peer for peer in self._peers.values() if peer.first is not None]

    def counts(self) -> dict[str, int]:
        """Return the sizes of the tables."""
        mappings = sum(map(len, self._spaces.values()))
        return {"table.peers": self._enrolled, "table.mappings": mappings}


def _put(table: dict, key, value) -> None:  # type: ignore[no-untyped-def, type-arg]
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value


def _prefixes(row: Row | None) -> tuple[bytes, ...]:
    """Read prefixes as META carries them: text, separated by spaces."""
    words = row.split() if isinstance(row, str) else ()
    return tuple(prefix_to_bytes(ipaddress.ip_network(word)) for word in words)


def _text(packed: bytes) -> str:
    return inet_ntop(AF_INET if len(packed) == 4 else AF_INET6, packed)
