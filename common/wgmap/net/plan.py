"""What has to change so that what is there becomes what is wanted; no I/O."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface
from typing import Generic, TypeAlias, TypeVar

from wgmap.addresses import IPAddress, IPNetwork

IPInterface: TypeAlias = IPv4Interface | IPv6Interface
MAIN_TABLE = 254
T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Route:
    """A route to a prefix over an interface.

    The kernel tells routes apart by table, prefix and metric: two routes that differ only in the
    rest replace each other.
    """

    prefix: IPNetwork
    interface: str
    source: IPAddress | None = None  # RTA_PREFSRC: what unbound sockets send from
    metric: int = 0  # 0: the family's default
    table: int = MAIN_TABLE

    @property
    def identity(self) -> tuple[int, IPNetwork, int]:
        """What the kernel knows the route by."""
        return self.table, self.prefix, self.metric


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A policy rule: what matches every selector given is looked up in ``table`` (ip-rule(8))."""

    family: int  # 4 or 6
    priority: int
    table: int
    fwmark: int | None = None
    destination: IPNetwork | None = None
    udp_source_port: int | None = None


@dataclass(frozen=True, slots=True)
class Difference(Generic[T]):
    """What to add (or to replace) and what to delete, in this order of the inputs."""

    add: tuple[T, ...]
    delete: tuple[T, ...]

    def __bool__(self) -> bool:
        """Tell whether there is anything to do."""
        return bool(self.add or self.delete)


def difference(wanted: Iterable[T], present: Iterable[T]) -> Difference[T]:
    """Compare two sets of values; duplicates count once."""
    want, have = dict.fromkeys(wanted), dict.fromkeys(present)
    return Difference(
        tuple(value for value in want if value not in have),
        tuple(value for value in have if value not in want),
    )


def route_difference(wanted: Iterable[Route], present: Iterable[Route]) -> Difference[Route]:
    """Compare routes; one that is replaced is not deleted as well.

    Of several wanted routes with one identity the last is taken, as the kernel would.
    """
    want = {route.identity: route for route in wanted}
    change = difference(want.values(), present)
    gone = tuple(route for route in change.delete if route.identity not in want)
    return Difference(change.add, gone)
