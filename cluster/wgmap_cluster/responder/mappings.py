"""Peers and their mappings as they are kept: 0.6 KB for a peer with one.

Of a mapping its record is kept, ready to be sent, and whose it is; what else is wanted of it now
and then is read from there. Of an enrolled host so much is kept as answers go by.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from wgmap_cluster.responder import written


@dataclass(frozen=True, slots=True)
class Place:
    """Where a mapping stands."""

    instance: int
    prefix: bytes


class Kind(NamedTuple):
    """What many peers have in common; there is one of each kind."""

    enrolled: bool = False  # mappings may be there before their peer, and after it
    revoked: bool = False
    instance: int = 0
    keyed: bool = False  # enrolled as a WireGuard agent
    takes_keys: bool = False  # it understands locators with keys (type 11)
    has_one_host: bool = False  # it has one mapping, and that is of a host


@cache
def _the_one(kind: Kind) -> Kind:
    return kind


NOBODY = Kind()


class Mapping:
    """What is served for a prefix."""

    __slots__ = ("next", "peer", "record")

    def __init__(self, peer: "Peer", record: bytes) -> None:
        """Make it of a record with authority."""
        self.peer = peer
        self.record = record
        self.next: Mapping | None = None  # of the same peer

    @property
    def place(self) -> Place:
        """Where it stands."""
        return Place(*written.place_of(self.record))

    @property
    def ttl_min(self) -> int:
        """How long an agent may go by it."""
        return int.from_bytes(self.record[:4])

    @property
    def length(self) -> int:
        """The length of its prefix."""
        return self.record[written.LENGTH_AT]

    @property
    def is_host(self) -> bool:
        """Whether it is of one address."""
        return written.is_of_host(self.record)


class Peer:
    """A host that is enrolled, or that has mappings."""

    __slots__ = ("address", "first", "kind", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.address = ""  # in the control tunnel, as the kernel's source addresses are written
        self.kind = NOBODY
        self.first: Mapping | None = None

    def mappings(self) -> Iterator[Mapping]:
        """Yield its mappings in the order of their coming."""
        mapping = self.first
        while mapping is not None:
            yield mapping
            mapping = mapping.next

    def join(self, mapping: Mapping) -> None:
        """Take a mapping as its last."""
        last = self.first
        while last is not None and last.next is not None:
            last = last.next
        if last is None:
            self.first = mapping
        else:
            last.next = mapping
        self.judge()

    def part(self, mapping: Mapping) -> None:
        """Let go of a mapping that it has."""
        rest, mapping.next = mapping.next, None
        if self.first is mapping:
            self.first = rest
        else:
            next(one for one in self.mappings() if one.next is mapping).next = rest
        self.judge()

    def enrol(self, address: str, kind: Kind) -> None:
        """Take what is enrolled of it; NOBODY: it is not any more."""
        self.address = address
        self.kind = kind
        self.judge()

    def judge(self) -> None:
        """Say anew what goes by its mappings.

        It takes keys where it registered one, or nothing yet and is an agent.
        """
        first, kind = self.first, self.kind
        takes_keys = kind.keyed if first is None else written.has_key(first.record)
        one_host = first is not None and first.next is None and first.is_host
        self.kind = _the_one(kind._replace(takes_keys=takes_keys, has_one_host=one_host))
