"""The responder's copy of the replicated tables, and what is looked up in it."""

import ipaddress
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
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
from wgmap_cluster.responder.space import Space


@dataclass(frozen=True, slots=True)
class Place:
    """Where a mapping stands."""

    instance: int
    prefix: bytes


class Tables:
    """Peers, mappings, servers and meta as of ``index``."""

    def __init__(self) -> None:
        self.index = 0
        self.peers: dict[str, PeerRow] = {}
        self.servers: dict[str, ServerRow] = {}
        self.revocations: dict[int, RevocationRow] = {}
        self._revoked: list[int] = []  # the numbers of revocations, ascending
        self.overlay: tuple[bytes, ...] = ()
        self.instances: dict[int, InstanceRow] = {}
        self.control_prefix = b""
        self.cluster_id: Row | None = None
        self._spaces: dict[int, Space] = {}
        self._places: dict[str, tuple[Place, ...]] = {}
        self._by_address: dict[str, str] = {}

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
        if old is not None and (row is None or old.peer != row.peer):
            left = tuple(p for p in self._places[old.peer] if p != place)
            _put(self._places, old.peer, left or None)
        if row is None:
            if old is not None:
                self._spaces[place.instance].remove(place.prefix)
            return
        if old is None or old.peer != row.peer:
            places = (*self._places.get(row.peer, ()), place)
            self._places[row.peer] = places
        self._spaces.setdefault(place.instance, Space()).put(place.prefix, row)

    def _set_peer(self, name: str, row: PeerRow | None) -> None:
        old = self.peers.get(name)
        if old is not None:
            address = address_text(old.control_address)
            if self._by_address.get(address) == name:
                del self._by_address[address]
        _put(self.peers, name, row)
        if row is not None and not row.revoked:
            self._by_address[address_text(row.control_address)] = name

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

    # ----------------------------------------------------------------------------- looking

    def peer_at(self, address: str) -> str | None:
        """Return the enrolled, unrevoked peer with this control address, as text."""
        return self._by_address.get(address)

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

    def mapping(self, place: Place) -> MappingRow | None:
        """Return the row of a mapping."""
        space = self._spaces.get(place.instance)
        return space.rows.get(place.prefix) if space else None

    def match(self, instance: int, address: bytes) -> tuple[Place, MappingRow] | None:
        """Return the mapping that serves an address."""
        space = self._spaces.get(instance)
        prefix = space.match(address) if space else None
        if space is None or prefix is None:
            return None
        return Place(instance, prefix), space.rows[prefix]

    def places_of(self, peer: str) -> tuple[Place, ...]:
        """Return where the mappings of a peer stand."""
        return self._places.get(peer, ())

    def mappings_of(self, peer: str) -> Iterator[tuple[Place, MappingRow]]:
        """Yield the mappings of a peer."""
        for place in self.places_of(peer):
            yield place, self._spaces[place.instance].rows[place.prefix]

    def takes_keys(self, peer: str) -> bool:
        """Say whether a peer understands locators with keys (type 11): it registered one.

        One that has registered nothing does if it was enrolled as a WireGuard agent.
        """
        for _, row in self.mappings_of(peer):
            return bool(row.key)
        known = self.peers.get(peer)
        return known is not None and bool(known.control_key) and not known.lisp_key

    def registered_peers(self) -> list[str]:
        """Return the names of all peers that have a mapping."""
        return list(self._places)

    def counts(self) -> dict[str, int]:
        """Return the sizes of the tables."""
        mappings = sum(len(space.rows) for space in self._spaces.values())
        return {"table.peers": len(self.peers), "table.mappings": mappings}


def _put(table: dict, key, value) -> None:  # type: ignore[no-untyped-def, type-arg]
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value


def _prefixes(row: Row | None) -> tuple[bytes, ...]:
    """Read prefixes as META carries them: text, separated by spaces."""
    words = row.split() if isinstance(row, str) else ()
    return tuple(prefix_to_bytes(ipaddress.ip_network(word)) for word in words)


def address_text(packed: bytes) -> str:
    """Write an address as the kernel's source addresses are written."""
    return inet_ntop(AF_INET if len(packed) == 4 else AF_INET6, packed)
