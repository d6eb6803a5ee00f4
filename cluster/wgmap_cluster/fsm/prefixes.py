"""Prefixes of an instance as table keys: which cover one, which may be enrolled."""

import ipaddress
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from wgmap.addresses import IPNetwork, prefix_from_bytes

PrefixKey: TypeAlias = tuple[int, bytes]  # instance, prefix as prefix_to_bytes writes it

_NEVER_UNICAST = tuple(
    ipaddress.ip_network(text)
    for text in (
        *("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4"),
        *("::/128", "::1/128", "::ffff:0:0/96", "fe80::/10", "ff00::/8"),
    )
)


class PrefixLengths:
    """Which prefix lengths a table has, so that a longest match tries only those.

    Finding all covering prefixes costs one dictionary look-up per length in use, which is a
    handful in practice.
    """

    def __init__(self) -> None:
        """Start without any prefix."""
        self._counts: dict[tuple[int, int], Counter[int]] = {}
        self._longest_first: dict[tuple[int, int], tuple[int, ...]] = {}

    def add(self, key: PrefixKey) -> None:
        """Count one more prefix."""
        space = (key[0], len(key[1]))
        counts = self._counts.setdefault(space, Counter())
        counts[key[1][0]] += 1
        if counts[key[1][0]] == 1:
            self._longest_first[space] = tuple(sorted(counts, reverse=True))

    def remove(self, key: PrefixKey) -> None:
        """Forget one that was added."""
        space = (key[0], len(key[1]))
        counts = self._counts[space]
        counts[key[1][0]] -= 1
        if not counts[key[1][0]]:
            del counts[key[1][0]]
            self._longest_first[space] = tuple(sorted(counts, reverse=True))

    def covering(self, key: PrefixKey) -> Iterator[PrefixKey]:
        """Yield every key of a length in use that covers ``key``, itself first, longest first."""
        instance, prefix = key
        bits = 8 * (len(prefix) - 1)
        address = int.from_bytes(prefix[1:])
        for length in self._longest_first.get((instance, len(prefix)), ()):
            if length <= prefix[0]:
                masked = address >> (bits - length) << (bits - length)
                yield instance, bytes((length,)) + masked.to_bytes(bits // 8)


def covers(wide: bytes, prefix: bytes) -> bool:
    """Tell whether ``wide`` holds ``prefix`` (or is the same), both in bytes."""
    if len(wide) != len(prefix) or wide[0] > prefix[0]:
        return False
    shift = 8 * (len(wide) - 1) - wide[0]
    return int.from_bytes(wide[1:]) >> shift == int.from_bytes(prefix[1:]) >> shift


def overlaps(one: bytes, other: bytes) -> bool:
    """Tell whether two prefixes in bytes share an address."""
    return covers(one, other) or covers(other, one)


def reason_not_enrollable(prefix: bytes, reserved: Iterable[IPNetwork]) -> str | None:
    """Say why a prefix may not be registered by anybody, or None.

    ``reserved`` are the cluster's own prefixes: control and mesh.
    """
    try:
        network = prefix_from_bytes(prefix)
    except ValueError as error:
        return str(error)
    for own in reserved:
        if _overlap(network, own):
            return f"{network} overlaps {own}, which is the cluster's own"
    for special in _NEVER_UNICAST:
        if _overlap(network, special):
            return f"{network} is not unicast: it overlaps {special}"
    return None


def _overlap(one: IPNetwork, other: IPNetwork) -> bool:
    return one.version == other.version and one.overlaps(other)
