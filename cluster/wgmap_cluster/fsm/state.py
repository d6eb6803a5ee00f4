"""The replicated tables with the indexes that follow from them.

Everything is changed through ``put``, row by row, so that indexes and tables cannot disagree.
Rows are immutable: a shallow copy of the tables is a consistent picture.
"""

import ipaddress
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from itertools import takewhile
from typing import Any, NamedTuple

from wgmap.addresses import (
    IPAddress,
    IPNetwork,
    host_prefix,
    prefix_from_bytes,
    prefix_to_bytes,
)
from wgmap_cluster.fsm.prefixes import PrefixKey, PrefixLengths
from wgmap_cluster.fsm.rows import (
    AuditRow,
    Change,
    InstanceRow,
    Key,
    MappingRow,
    Meta,
    PeerRow,
    RegistrationRow,
    RevocationRow,
    Row,
    ServerRow,
    Table,
)
from wgmap_cluster.fsm.versions import NO_VERSION, newest

MESH_LENGTH = 64  # of the reserved prefix around a server's IPv6 mesh address


class Found(NamedTuple):
    """The mapping that serves an address."""

    instance: int
    prefix: bytes
    row: MappingRow


class Counts(NamedTuple):
    """Sizes, for status and metrics; ``peers`` without the revoked ones."""

    peers: int
    revoked: int
    mappings: int
    servers: int


class InstanceCounts(NamedTuple):
    """Sizes of one instance, for metrics; ``peers`` without the revoked ones."""

    peers: int
    mappings: int


class State:
    """Tables and indexes; read the dictionaries, change them only through ``put``."""

    def __init__(self) -> None:
        """Start empty."""
        self.tables: dict[Table, dict[Any, Any]] = {table: {} for table in Table}
        self.meta: dict[str, int | float | bytes | str] = self.tables[Table.META]
        self.servers: dict[str, ServerRow] = self.tables[Table.SERVERS]
        self.peers: dict[str, PeerRow] = self.tables[Table.PEERS]
        self.registrations: dict[str, RegistrationRow] = self.tables[Table.REGISTRATIONS]
        self.mappings: dict[PrefixKey, MappingRow] = self.tables[Table.MAPPINGS]
        self.versions: dict[PrefixKey, int] = self.tables[Table.VERSIONS]
        self.audit: dict[int, AuditRow] = self.tables[Table.AUDIT]
        self.revocations: dict[int, RevocationRow] = self.tables[Table.REVOCATIONS]
        self.instances: dict[int, InstanceRow] = self.tables[Table.INSTANCES]
        self._by_address: dict[bytes, str] = {}
        self._by_key: dict[bytes, str] = {}
        self._owners: dict[PrefixKey, str] = {}
        self._held: dict[str, dict[PrefixKey, None]] = {}
        self._sizes: Counter[int] = Counter()  # instance -> mappings
        self._members: Counter[int] = Counter()  # instance -> peers that are not revoked
        self._owner_lengths = PrefixLengths()
        self._mapping_lengths = PrefixLengths()
        self._version_lengths = PrefixLengths()

    def put(self, change: Change) -> None:
        """Set or remove one row and keep the indexes."""
        table = self.tables[change.table]
        old = table.get(change.key)
        if change.row is None:
            table.pop(change.key, None)
        else:
            table[change.key] = change.row
        self._reindex(change.table, change.key, old, change.row)

    def _reindex(self, table: Table, key: Any, old: Any, new: Any) -> None:
        if table is Table.PEERS:
            self._unindex_peer(old)
            self._index_peer(key, new)
        elif table is Table.MAPPINGS:
            self._index_mapping(key, old, new)
        elif table is Table.VERSIONS and (old is None) != (new is None):
            (self._version_lengths.add if old is None else self._version_lengths.remove)(key)

    def _unindex_peer(self, row: PeerRow | None) -> None:
        if row is None:
            return
        self._by_address.pop(row.control_address, None)
        self._by_key.pop(row.control_key, None)
        self._members[row.instance] -= not row.revoked
        for prefix in () if row.revoked else row.prefixes:
            del self._owners[row.instance, prefix]
            self._owner_lengths.remove((row.instance, prefix))

    def _index_peer(self, name: str, row: PeerRow | None) -> None:
        if row is None:
            return
        self._by_address[row.control_address] = name
        if row.control_key:
            self._by_key[row.control_key] = name
        self._members[row.instance] += not row.revoked
        for prefix in () if row.revoked else row.prefixes:
            self._owners[row.instance, prefix] = name
            self._owner_lengths.add((row.instance, prefix))

    def _index_mapping(
        self, key: PrefixKey, old: MappingRow | None, new: MappingRow | None
    ) -> None:
        self._sizes[key[0]] += (new is not None) - (old is not None)
        if old is not None:
            self._mapping_lengths.remove(key)
            if new is None or new.peer != old.peer:
                held = self._held[old.peer]
                del held[key]
                if not held:
                    del self._held[old.peer]
        if new is not None:
            self._mapping_lengths.add(key)
            self._held.setdefault(new.peer, {})[key] = None

    # What is there.

    @property
    def founded(self) -> bool:
        """Whether the cluster was bootstrapped."""
        return Meta.CLUSTER_ID in self.meta

    @property
    def clock(self) -> float:
        """The replicated clock, seconds."""
        return float(self.meta.get(Meta.CLOCK, 0.0))

    @property
    def revocation(self) -> int:
        """The number of the last revocation, 0 before the first."""
        return int(self.meta.get(Meta.REVOCATIONS, 0))

    @property
    def control_prefix(self) -> ipaddress.IPv6Network | None:
        """The prefix of control addresses, None before the bootstrap."""
        text = self.meta.get(Meta.CONTROL_PREFIX)
        return _network6(text) if isinstance(text, str) else None

    @property
    def overlay(self) -> tuple[IPNetwork, ...]:
        """The prefixes of the overlay, in instances that have none of their own."""
        return _networks(str(self.meta.get(Meta.OVERLAY, "")))

    def overlay_of(self, instance: int) -> tuple[IPNetwork, ...]:
        """Return the prefixes of an instance's overlay."""
        row = self.instances.get(instance)
        own = row.overlay if row is not None else ()
        return tuple(map(prefix_from_bytes, own)) or self.overlay

    def size(self, instance: int) -> int:
        """Return how many mappings an instance has."""
        return self._sizes[instance]

    def reserved(self) -> Iterator[IPNetwork]:
        """Yield the prefixes that nobody may enrol: control, and around mesh addresses."""
        control = self.control_prefix
        if control is not None:
            yield control
        for row in self.servers.values():
            yield _around(row.mesh_address)

    def peer_by_address(self, address: bytes) -> str | None:
        """Return the name of the peer with that control address, revoked or not."""
        return self._by_address.get(address)

    def peer_by_key(self, key: bytes) -> str | None:
        """Return the name of the peer with that control key, revoked or not."""
        return self._by_key.get(key)

    def owner(self, key: PrefixKey) -> tuple[PrefixKey, str] | None:
        """Return the longest enrolled prefix that covers ``key``, and its peer."""
        for wide in self._owner_lengths.covering(key):
            if wide in self._owners:
                return wide, self._owners[wide]
        return None

    def owners_over(self, key: PrefixKey) -> Iterator[str]:
        """Yield the peers of all enrolled prefixes that cover ``key``, longest first."""
        for wide in self._owner_lengths.covering(key):
            if wide in self._owners:
                yield self._owners[wide]

    def held_by(self, name: str) -> tuple[tuple[PrefixKey, MappingRow], ...]:
        """Return a peer's mappings in the order of their prefixes."""
        keys = sorted(self._held.get(name, ()))
        return tuple((key, self.mappings[key]) for key in keys)

    def last_version(self, key: PrefixKey) -> int:
        """Return the newest version that a mapping of ``key`` may have had before."""
        version = NO_VERSION
        for wide in self._version_lengths.covering(key):
            version = newest(version, self.versions.get(wide, NO_VERSION))
        # Never compared with the others: the floor may be half the circle away from them.
        return version or int(self.meta.get(Meta.VERSION_FLOOR, NO_VERSION))

    def resolve(self, instance: int, address: IPAddress) -> Found | None:
        """Return the most specific mapping that holds an address."""
        key = (instance, prefix_to_bytes(host_prefix(address)))
        for wide in self._mapping_lengths.covering(key):
            row = self.mappings.get(wide)
            if row is not None:
                return Found(instance, wide[1], row)
        return None

    def counts(self) -> Counts:
        """Return sizes; the revoked ones are as many as revocations were."""
        revoked = len(self.revocations)
        return Counts(len(self.peers) - revoked, revoked, len(self.mappings), len(self.servers))

    def instance_counts(self, most: int) -> dict[int, InstanceCounts]:
        """Return the sizes of the ``most`` instances with the most peers."""
        members = self._members.most_common(most)
        return {one: InstanceCounts(peers, self._sizes[one]) for one, peers in members if peers}

    def revoked_since(self, number: int, most: int) -> list[tuple[int, RevocationRow]]:
        """Return the first ``most`` revocations after ``number``, oldest first.

        Costs what is returned; after a restore the numbers have one gap, which is skipped.
        """
        # The table is in the order of the numbers: rows are only ever added.
        newest_first = takewhile(lambda item: item[0] > number, reversed(self.revocations.items()))
        return list(newest_first)[::-1][:most]

    def rows(self) -> Iterator[tuple[Table, Key, Row]]:
        """Yield every row, table by table."""
        for table, rows in self.tables.items():
            for key, row in rows.items():
                yield table, key, row


# These are asked for with every peer that is enrolled, and nearly never change.


@lru_cache(maxsize=16)
def _network6(text: str) -> ipaddress.IPv6Network:
    return ipaddress.IPv6Network(text)


@lru_cache(maxsize=16)
def _networks(text: str) -> tuple[IPNetwork, ...]:
    return tuple(map(ipaddress.ip_network, text.split()))


@lru_cache(maxsize=256)
def _around(mesh_address: bytes) -> IPNetwork:
    length = MESH_LENGTH if len(mesh_address) == 16 else 32
    return ipaddress.ip_network((mesh_address, length), strict=False)
