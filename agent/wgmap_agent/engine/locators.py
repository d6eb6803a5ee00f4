"""Priorities and weights (RFC 9301, section 5.4): what we register, and which way we take.

A WireGuard peer has one endpoint at a time. The lowest priority is taken first; of those that share
it and are of one family, each agent takes one by weight, always the same, so that a fleet spreads
and nobody changes his mind. The others are the ways that are left when that one goes silent.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wgmap.addresses import Endpoint, IPAddress, IPNetwork
from wgmap.lisp.messages import Locator

UNUSABLE_PRIORITY = 255  # RFC 9301, section 5.4
WEIGHT = 100
MAX_WAYS = 8


@dataclass(frozen=True, slots=True)
class Rank:
    """What is configured for own addresses inside a prefix."""

    prefix: IPNetwork
    priority: int
    weight: int


def own_ranks(
    addresses: Sequence[IPAddress], configured: Iterable[Rank]
) -> tuple[tuple[IPAddress, int, int], ...]:
    """Return own addresses with priority and weight; those of priority 255 are left out.

    ``addresses``: the best first. Of those for which nothing is configured the first of each
    family has priority 1, the others 2.
    """
    ranks = tuple(configured)
    seen: set[int] = set()
    found = []
    for address in addresses:
        rank = next((one for one in ranks if address in one.prefix), None)
        if rank is not None:
            found.append((address, rank.priority, rank.weight))
            continue
        found.append((address, 2 if address.version in seen else 1, WEIGHT))
        seen.add(address.version)
    return tuple(one for one in found if one[1] != UNUSABLE_PRIORITY)


def ways(locators: Sequence[Locator], chooser: bytes) -> tuple[Endpoint, ...]:
    """Return the endpoints of usable locators, the one to take first; at most MAX_WAYS.

    ``chooser`` is of the agent that chooses: it decides between equals.
    """
    ordered = sorted(locators, key=lambda one: one.priority)
    equals = [
        one
        for one in ordered
        if one.priority == ordered[0].priority and one.address.version == ordered[0].address.version
    ]
    first = max(equals, key=lambda one: _share(one, chooser)) if len(equals) > 1 else ordered[0]
    endpoints = (Endpoint(one.address, one.port) for one in (first, *ordered))
    return tuple(dict.fromkeys(endpoints))[:MAX_WAYS]


def _share(locator: Locator, chooser: bytes) -> tuple[float, bytes]:
    """Draw for a locator: over many choosers it is the greatest as often as its weight says."""
    digest = hashlib.sha256(chooser + locator.address.packed + locator.port.to_bytes(2)).digest()
    draw = (int.from_bytes(digest[:8]) + 1) / (1 << 64)
    score = -math.inf if not locator.weight else math.log(draw) / locator.weight
    return score, digest
