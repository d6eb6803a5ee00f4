"""Peers and mappings a page at a time: somebody looks for one among a hundred thousand.

Nothing is kept in order for it: a page is one walk over the table, with a rest every few hundred
rows, for the log must beat meanwhile. What changes during the walk may or may not be seen.
"""

import asyncio
import contextlib
import heapq
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from wgmap.addresses import prefix_to_bytes
from wgmap.wg.keys import PublicKey
from wgmap_cluster.fsm.machine import Machine
from wgmap_cluster.fsm.prefixes import PrefixKey, overlaps
from wgmap_cluster.fsm.rows import MappingRow, PeerRow
from wgmap_cluster.fsm.state import State
from wgmap_cluster.replica.views import (
    MappingRowView,
    PeerView,
    mapping_row_view,
    peer_view,
)

REST_ROWS = 500  # walked before others get their turn: about a millisecond
K = TypeVar("K")
R = TypeVar("R")
V = TypeVar("V")
Order: TypeAlias = Any  # what rows are ordered by; the cursor of a page is that of its last row


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows: those with this text in them, after the cursor, at most so many."""

    search: str = ""
    instance: int | None = None
    state: str | None = None  # of peers: registered, enrolled, revoked
    after: Order | None = None
    limit: int = 100


class Page(NamedTuple, Generic[V]):
    """Some rows; ``total``: how many there are with all pages together."""

    rows: list[V]
    total: int
    more: bool


class Term(NamedTuple):
    """What is searched for, read in every way that it can be read."""

    text: str
    prefix: bytes | None
    address: bytes | None
    key: bytes | None

    @classmethod
    def read(cls, text: str) -> "Term":
        """Read it: a prefix or an address, a key, else a part of a name."""
        text = text.strip()
        prefix = address = key = None
        with contextlib.suppress(ValueError):
            network = ipaddress.ip_network(text, strict=False)
            prefix = prefix_to_bytes(network)
            address = None if "/" in text else network.network_address.packed
        with contextlib.suppress(ValueError):
            key = bytes(PublicKey.parse(text))
        return cls(text.lower(), prefix, address, key)


def mapping_order(key: PrefixKey) -> Order:
    """Order mappings by instance, family, address and length."""
    instance, prefix = key
    return b"%08x%02x%b%b" % (instance, len(prefix), prefix[1:], prefix[:1])


class Browser:
    """Reads the tables of this server."""

    def __init__(self, machine: Machine) -> None:
        """Read the machine's state, as it is when asked."""
        self._machine = machine

    async def peers(self, wanted: Wanted) -> Page[PeerView]:
        """Return a page of peers in the order of their names."""
        state = self._machine.state
        matches = _peer_matcher(state, wanted)
        page = await _walk(state.peers, str, matches, wanted)
        registrations = state.registrations
        views = [
            peer_view(name, row, registrations.get(name), state.clock) for name, row in page.rows
        ]
        return Page(views, page.total, page.more)

    async def mappings(self, wanted: Wanted) -> Page[MappingRowView]:
        """Return a page of mappings in the order of ``mapping_order``."""
        state = self._machine.state
        page = await _walk(state.mappings, mapping_order, _mapping_matcher(wanted), wanted)
        return Page([mapping_row_view(*row) for row in page.rows], page.total, page.more)


async def _walk(
    table: Mapping[K, R],
    order: Callable[[K], Order],
    matches: Callable[[K, R], bool],
    wanted: Wanted,
) -> Page[tuple[K, R]]:
    rows = iter(list(table.items()))
    first: list[tuple[Order, K, R]] = []  # the smallest so far, in order
    total = 0
    while piece := list(islice(rows, REST_ROWS)):
        found = [(order(key), key, row) for key, row in piece if matches(key, row)]
        total += len(found)
        if wanted.after is not None:
            found = [each for each in found if each[0] > wanted.after]
        if len(first) > wanted.limit:  # nearly all of a large table is beyond what is shown
            last = first[-1][0]
            found = [each for each in found if each[0] < last]
        if found:
            first = heapq.nsmallest(wanted.limit + 1, first + found, key=itemgetter(0))
        await asyncio.sleep(0)
    shown = [(key, row) for _, key, row in first[: wanted.limit]]
    return Page(shown, total, len(first) > wanted.limit)


def _peer_matcher(state: State, wanted: Wanted) -> Callable[[str, PeerRow], bool]:
    term = Term.read(wanted.search)
    if not term.text and wanted.instance is None and wanted.state is None:
        return _any

    def matches(name: str, row: PeerRow) -> bool:
        if wanted.instance is not None and row.instance != wanted.instance:
            return False
        if wanted.state is not None and _state(state, name, row) != wanted.state:
            return False
        return not term.text or _is_peer(term, name, row)

    return matches


def _any(_key: object, _row: object) -> bool:
    return True


def _is_peer(term: Term, name: str, row: PeerRow) -> bool:
    if term.text in name.lower():
        return True
    if term.prefix is not None and any(overlaps(term.prefix, each) for each in row.prefixes):
        return True
    return row.control_key == term.key or row.control_address == term.address


def _state(state: State, name: str, row: PeerRow) -> str:
    if row.revoked:
        return "revoked"
    registration = state.registrations.get(name)
    registered = registration is not None and registration.ttl_min > 0
    return "registered" if registered else "enrolled"


def _mapping_matcher(wanted: Wanted) -> Callable[[PrefixKey, MappingRow], bool]:
    term = Term.read(wanted.search)
    if not term.text and wanted.instance is None:
        return _any

    def matches(key: PrefixKey, row: MappingRow) -> bool:
        if wanted.instance is not None and key[0] != wanted.instance:
            return False
        return not term.text or _is_mapping(term, key[1], row)

    return matches


def _is_mapping(term: Term, prefix: bytes, row: MappingRow) -> bool:
    if term.text in row.peer.lower():
        return True
    if term.prefix is not None and overlaps(term.prefix, prefix):
        return True
    at = term.address
    return row.key == term.key or (
        at is not None and any(one.address == at for one in row.locators)
    )
