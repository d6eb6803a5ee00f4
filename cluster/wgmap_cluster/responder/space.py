"""The mappings of one instance: longest match, coverings, and the room between prefixes."""

import socket
from collections.abc import Callable, Iterator
from itertools import islice

import pytricia

from wgmap_cluster.responder.mappings import Mapping
from wgmap_cluster.responder.ordered import Ordered

MAX_HOLES = 32  # foreign prefixes inside a mapping that are cut out exactly
MAX_PIECES = 64  # what may remain of a mapping when they are
MAX_SCAN = 256  # neighbours looked at; what lies behind them is taken as foreign
_BITS = {4: 32, 16: 128}
_FAMILY = {4: socket.AF_INET, 16: socket.AF_INET6}


class Family:
    """The mappings of one address family in one instance.

    Nearly all are of hosts: an exact match finds them, and only wider prefixes are in the trie.
    In order, prefixes are numbers, ``address << 8 | length``: a prefix stands before all that lie
    inside it, and the neighbours of an address are what limits the room around it. Hosts are kept
    in order by their addresses alone, which are there anyway.
    """

    __slots__ = ("_hosts_in_order", "_trie", "_wide_in_order", "bits", "hosts", "size", "wide")

    def __init__(self, size: int) -> None:
        """Make it for addresses of ``size`` bytes (4 or 16)."""
        self.size = size
        self.bits = _BITS[size]
        self.hosts: dict[bytes, Mapping] = {}  # by address
        self.wide: dict[bytes, Mapping] = {}  # by prefix
        self._trie = pytricia.PyTricia(self.bits, _FAMILY[size], True)
        self._hosts_in_order = Ordered[bytes]()
        self._wide_in_order = Ordered[int]()

    def __len__(self) -> int:
        return len(self.hosts) + len(self.wide)

    def put(self, prefix: bytes, mapping: Mapping) -> None:
        """Put a mapping in (as ``prefix_to_bytes`` writes it; the feed has checked it)."""
        if prefix[0] == self.bits:
            address = prefix[1:]
            self.hosts[address] = mapping
            self._hosts_in_order.add(address)
        else:
            self.wide[prefix] = mapping
            self._trie.insert(prefix[1:], prefix[0], mapping)
            self._wide_in_order.add(number_of(prefix))

    def remove(self, prefix: bytes) -> None:
        """Take out a mapping that is there."""
        if prefix[0] == self.bits:
            del self.hosts[prefix[1:]]
            self._hosts_in_order.remove(prefix[1:])
        else:
            del self.wide[prefix]
            self._trie.delete((prefix[1:], prefix[0]))
            self._wide_in_order.remove(number_of(prefix))

    def at(self, prefix: bytes) -> Mapping | None:
        """Return the mapping of exactly this prefix."""
        if prefix[0] == self.bits:
            return self.hosts.get(prefix[1:])
        return self.wide.get(prefix)

    def match(self, address: bytes) -> Mapping | None:
        """Return the mapping with the longest prefix that holds this address."""
        found: Mapping | None = self.hosts.get(address)
        if found is None and self.wide:
            found = self._trie.get(address)
        return found

    def covering(self, prefix: bytes) -> Iterator[Mapping]:
        """Yield the mappings around a prefix that is there or not, the narrowest first."""
        length = prefix[0] - 1
        while length >= 0 and self.wide:
            found: Mapping | None = self._trie.get((_cut(prefix[1:], length), length))
            if found is None:
                return
            yield found
            length = found.length - 1

    def _before(self, number: int) -> int | None:
        """Return the last prefix that stands before this number."""
        wide = self._wide_in_order.before(number)
        # One byte more is the least that stands behind an address itself.
        bound = (number >> 8).to_bytes(self.size) + (b"\0" if number & 255 > self.bits else b"")
        host = self._hosts_in_order.before(bound)
        found = None if host is None else int.from_bytes(host) << 8 | self.bits
        return max((n for n in (wide, found) if n is not None), default=None)

    def _after(self, number: int) -> int | None:
        """Return the first prefix that stands behind this number."""
        wide = self._wide_in_order.after(number)
        bound = (number >> 8).to_bytes(self.size)
        own = number & 255 < self.bits and bound in self.hosts
        host = bound if own else self._hosts_in_order.after(bound)
        found = None if host is None else int.from_bytes(host) << 8 | self.bits
        return min((n for n in (wide, found) if n is not None), default=None)

    def _between(self, low: int, high: int) -> Iterator[int]:
        """Yield the prefixes behind ``low`` up to and including ``high``, in order."""
        number = self._after(low)
        while number is not None and number <= high:
            yield number
            number = self._after(number)

    def room(self, address: bytes, within: int, own: Callable[[bytes], bool]) -> int:
        """Return the length of the largest prefix around an address that holds no other one.

        It is at least ``within`` long; the longest match of the address, if there is one, must
        have a length of ``within`` at most. Prefixes for which ``own`` is true do not count.
        """
        value = int.from_bytes(address)
        first = value >> (self.bits - within) << (self.bits - within)
        low = first << 8 | within
        high = (first | (1 << (self.bits - within)) - 1) << 8 | 255
        length = within
        start = value << 8 | 255
        before = self._first_foreign(self._before, start, range(low + 1, start), own)
        after = self._first_foreign(self._after, start, range(start + 1, high + 1), own)
        for near in (before, after):
            if near is not None:
                length = max(length, self.bits - (near >> 8 ^ value).bit_length() + 1)
        return length

    def _first_foreign(
        self,
        step: Callable[[int], int | None],
        start: int,
        inside: range,
        own: Callable[[bytes], bool],
    ) -> int | None:
        near = step(start)
        for _ in range(MAX_SCAN):
            if near is None or near not in inside:
                return None
            if not own(self.prefix_of(near)):
                break
            near = step(near)
        return near

    def pieces(self, prefix: bytes, own: Callable[[bytes], bool]) -> list[bytes] | None:
        """Return what is left of a prefix without the foreign ones inside it.

        None where those are too many, or too much would be left.
        """
        if prefix[0] == self.bits:  # a host, as most are: nothing lies inside it
            return [prefix]
        number = number_of(prefix)
        last = number >> 8 | (1 << (self.bits - prefix[0])) - 1
        inside = list(islice(self._between(number, last << 8 | 255), MAX_SCAN + 1))
        holes = [other for other in inside if not own(self.prefix_of(other))]
        if not holes:
            return [prefix] if len(inside) <= MAX_SCAN else None
        if len(inside) > MAX_SCAN or len(holes) > MAX_HOLES:
            return None
        left = list(islice(self._cut_out(number >> 8, prefix[0], holes), MAX_PIECES + 1))
        return [self.prefix_of(n) for n in left] if len(left) <= MAX_PIECES else None

    def _cut_out(self, first: int, length: int, holes: list[int]) -> Iterator[int]:
        last = first | (1 << (self.bits - length)) - 1
        holes = [hole for hole in holes if first <= hole >> 8 <= last]
        if not holes:
            yield first << 8 | length
        elif not any(hole >> 8 == first and hole & 255 <= length for hole in holes):
            middle = first | 1 << (self.bits - length - 1)
            yield from self._cut_out(first, length + 1, holes)
            yield from self._cut_out(middle, length + 1, holes)

    def prefix_of(self, number: int) -> bytes:
        """Write a number as a prefix again."""
        return bytes((number & 255,)) + (number >> 8).to_bytes(self.size)


def number_of(prefix: bytes) -> int:
    """Write a prefix as a number that sorts."""
    return int.from_bytes(prefix[1:]) << 8 | prefix[0]


def _cut(address: bytes, length: int) -> bytes:
    spare = 8 * len(address) - length
    return (int.from_bytes(address) >> spare << spare).to_bytes(len(address))


def cut(address: bytes, length: int) -> bytes:
    """Return the prefix of this length around an address."""
    return bytes((length,)) + _cut(address, length)


def apart(prefix: bytes, address: bytes) -> int:
    """Return the length at which a prefix around an address leaves another prefix out.

    0 where they are of different families.
    """
    if len(prefix) != len(address) + 1:
        return 0
    differ = int.from_bytes(prefix[1:]) ^ int.from_bytes(address)
    return 8 * len(address) - differ.bit_length() + 1


def holds(prefix: bytes, address: bytes) -> bool:
    """Say whether an address lies in a prefix (b"" holds none)."""
    if len(prefix) != len(address) + 1:
        return False
    whole, rest = divmod(prefix[0], 8)
    if rest:
        return apart(prefix, address) > prefix[0]
    return prefix[1 : whole + 1] == address[:whole]


class Space:
    """The mappings of one instance."""

    __slots__ = ("families",)

    def __init__(self) -> None:
        self.families = {4: Family(4), 16: Family(16)}

    def __len__(self) -> int:
        return sum(map(len, self.families.values()))

    def __bool__(self) -> bool:
        return True

    def family(self, prefix: bytes) -> Family:
        """Return the family of a prefix."""
        return self.families[len(prefix) - 1]

    def put(self, prefix: bytes, mapping: Mapping) -> None:
        """Put in a mapping where there is none."""
        self.family(prefix).put(prefix, mapping)

    def remove(self, prefix: bytes) -> None:
        """Take out a mapping that is there."""
        self.family(prefix).remove(prefix)

    def at(self, prefix: bytes) -> Mapping | None:
        """Return the mapping of exactly this prefix."""
        return self.family(prefix).at(prefix)

    def match(self, address: bytes) -> Mapping | None:
        """Return the mapping that serves an address."""
        return self.families[len(address)].match(address)

    def around(self, prefix: bytes) -> Iterator[Mapping]:
        """Yield the mappings around a prefix, the narrowest first."""
        return self.family(prefix).covering(prefix)

    def pieces(self, prefix: bytes) -> list[bytes] | None:
        """Return what is left of a mapping without those of other peers inside it, or None."""
        return self.family(prefix).pieces(prefix, self._of_the_same(prefix))

    def narrowed(self, address: bytes, prefix: bytes) -> bytes:
        """Return the largest part of a mapping around an address that holds no foreign one."""
        own = self._of_the_same(prefix)
        return cut(address, self.family(prefix).room(address, prefix[0], own))

    def empty_around(self, address: bytes, within: int) -> bytes:
        """Return the largest prefix around an unmapped address that holds no mapping."""
        return cut(address, self.families[len(address)].room(address, within, _nobody))

    def _of_the_same(self, prefix: bytes) -> Callable[[bytes], bool]:
        """Return what tells of a prefix that is mapped whether it is of the same peer as this."""
        peer = self._mapped(prefix).peer
        return lambda other: self._mapped(other).peer is peer

    def _mapped(self, prefix: bytes) -> Mapping:
        mapping = self.at(prefix)
        assert mapping is not None, "it is there"
        return mapping


def _nobody(_prefix: bytes) -> bool:
    return False
