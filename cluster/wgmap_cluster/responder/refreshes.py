"""Requests that must not be answered before a read barrier: batched, bounded, timed out."""

from dataclasses import dataclass, field

from wgmap_cluster.feed import Source
from wgmap_cluster.responder.actions import Again

MAX_WAITING = 4096
MAX_BARRIERS = 4  # asked of the replica at a time; what comes meanwhile shares the next one


@dataclass(slots=True)
class _Batch:
    asked: float
    waiting: list[tuple[bytes, Source]] = field(default_factory=list)


class Refreshes:
    """A request is only answered after a barrier that was asked for after it came."""

    def __init__(self, patience_s: float) -> None:
        """``patience_s``: from a barrier's question on; at most the staleness bound.

        For what comes of the barrier is authoritative, and says what stood when it was asked for.
        """
        self._patience_s = patience_s
        self._number = 0
        self._next: list[tuple[bytes, Source]] = []
        self._out: dict[int, _Batch] = {}
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def add(self, data: bytes, source: Source) -> bool:
        """Take a request in; False where too many wait already."""
        if self._waiting >= MAX_WAITING:
            return False
        self._next.append((data, source))
        self._waiting += 1
        return True

    def barrier(self, now: float) -> int | None:
        """Return the number of a barrier to be asked for now; None where there is no need."""
        if not self._next or len(self._out) >= MAX_BARRIERS:
            return None
        self._number += 1
        self._out[self._number] = _Batch(now, self._next)
        self._next = []
        return self._number

    def done(self, number: int) -> list[Again]:
        """Return the requests of a barrier that has come back, with how long that is good for."""
        batch = self._out.pop(number, None)
        if batch is None:
            return []
        self._waiting -= len(batch.waiting)
        return [Again(*each, batch.asked + self._patience_s) for each in batch.waiting]

    def give_up(self, now: float) -> int:
        """Forget the barriers that did not come back; returns how many requests that were."""
        late = [n for n, batch in self._out.items() if now - batch.asked >= self._patience_s]
        return sum(self._forget(number) for number in late)

    def lost(self) -> int:
        """Forget all, the replica being gone; returns how many requests that were."""
        count, self._waiting = self._waiting, 0
        self._out.clear()
        self._next = []
        return count

    def next_due(self) -> float | None:
        """Return when give_up() has something to do."""
        if not self._out:
            return None
        return min(batch.asked for batch in self._out.values()) + self._patience_s

    def _forget(self, number: int) -> int:
        count = len(self._out.pop(number).waiting)
        self._waiting -= count
        return count
