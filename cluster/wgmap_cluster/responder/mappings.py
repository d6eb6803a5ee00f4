"""Peers and their mappings as they are kept: a million of each fit into half a gigabyte.

Of a mapping its record is kept, ready to be sent, and whose it is; what else is wanted of it now
and then is read from there. Of an enrolled host so much is kept as answers go by.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from socket import AF_INET, AF_INET6, inet_ntop
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


@cache
def kind(enrolled: bool, revoked: bool, instance: int, keyed: bool, takes_keys: bool) -> Kind:
    """Return the one Kind of these values."""
    return Kind(enrolled, revoked, instance, keyed, takes_keys)


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
        self.address = b""  # in the control tunnel, packed
        self.kind = NOBODY
        self.first: Mapping | None = None

    @property
    def address_text(self) -> str:
        """Its address as the kernel's source addresses are written."""
        return inet_ntop(AF_INET if len(self.address) == 4 else AF_INET6, self.address)

    @property
    def has_one_host(self) -> bool:
        """Whether it has one mapping, and that is of a host."""
        first = self.first
        return first is not None and first.next is None and first.is_host

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

    def judge(self) -> None:
        """Say anew whether it takes keys: it registered one, or nothing yet and is an agent."""
        first = self.first
        takes_keys = self.kind.keyed if first is None else written.has_key(first.record)
        self.kind = kind(*self.kind[:4], takes_keys)
