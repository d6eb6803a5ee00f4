"""Registers that were answered as they stand: the same bytes again need no reading.

Every agent repeats its register once a minute, to the byte. To read it, to look for the owner of
each prefix and to write the answer takes half a millisecond: a hundred thousand agents at one
server are a whole processor. So the last answer to each is kept, with the rows that it was made
from; while those are the very same it is given again.
"""

import hashlib
from dataclasses import dataclass

from wgmap.addresses import IPAddress
from wgmap_cluster.fsm.rows import MappingRow, PeerRow
from wgmap_cluster.fsm.state import State
from wgmap_cluster.replica.admission import WITHDRAWS, Claim

MAX_KNOWN = 1 << 17  # peers; the oldest makes room. Some 600 bytes each
_Held = tuple[tuple[tuple[int, bytes], MappingRow], ...]


@dataclass(frozen=True, slots=True)
class Known:
    """A register that changes nothing, and its answer."""

    peer: str
    row: PeerRow
    asked: frozenset[IPAddress]  # locators that are right only where the tunnel comes from
    outer: tuple[IPAddress, ...]  # those of them from where it came
    dropped: int  # locators that were not taken
    answer: bytes
    register: bytes  # a digest of the datagram
    standing: tuple[int, bytes]  # nonce and digest of the registration
    held: _Held  # the mappings as they stood


class Repetitions:
    """The last register of each peer that was repeated here, bounded."""

    def __init__(self) -> None:
        self._known: dict[str, Known] = {}

    def __len__(self) -> int:
        return len(self._known)

    def keep(
        self, state: State, claimed: Claim, outer: tuple[IPAddress, ...], dropped: int, said: bytes
    ) -> None:
        """Remember that a register was answered with ``said``, from this state, unchanged.

        Not one that withdraws: whose prefix it is shows only in mappings that stand.
        """
        name = claimed.peer
        if any(record.ttl_min == WITHDRAWS for record in claimed.message.records):
            return
        if name not in self._known and len(self._known) >= MAX_KNOWN:
            del self._known[next(iter(self._known))]
        last = state.registrations[name]
        self._known[name] = Known(
            name,
            claimed.row,
            claimed.asked,
            outer,
            dropped,
            said,
            _digest(claimed.datagram),
            (last.nonce, last.digest),
            state.held_by(name),
        )

    def find(self, state: State, source: IPAddress, datagram: bytes) -> Known | None:
        """Return what is known of a register from a control address; None: it is to be read."""
        name = state.peer_by_address(source.packed)
        known = None if name is None else self._known.get(name)
        if known is None or known.register != _digest(datagram):
            return None
        if not stands(state, known):
            del self._known[known.peer]
            return None
        return known


def stands(state: State, known: Known) -> bool:
    """Tell whether nothing has changed of what an answer was made from."""
    last = state.registrations.get(known.peer)
    return (
        state.peers.get(known.peer) is known.row
        and last is not None
        and (last.nonce, last.digest) == known.standing
        and state.held_by(known.peer) == known.held
    )


def _digest(datagram: bytes) -> bytes:
    return hashlib.blake2b(datagram, digest_size=16).digest()
