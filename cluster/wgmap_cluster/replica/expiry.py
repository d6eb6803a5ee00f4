"""The replicated clock and the end of registrations: decided by the leader, applied by all.

The clock is the last replicated value plus the leader's own time since. A new leader starts the
grace of every peer anew: those who were seen may have been noted by a server that died with
its note. So does one that was away itself (its machine was suspended, its process stopped): nobody
could be seen by it meanwhile, and perhaps by no other server either.
"""

import heapq
from collections.abc import Iterable

from wgmap_cluster.fsm.commands import Advance, Command, Expire
from wgmap_cluster.fsm.registration import expires_at
from wgmap_cluster.fsm.results import Applied
from wgmap_cluster.fsm.rows import RegistrationRow, Table
from wgmap_cluster.fsm.state import State

TICK_S = 5.0
AWAY_S = 3 * TICK_S  # without a tick: far less than the shortest grace, which is 180 s
BATCH = 100  # peers in one Expire


class DueQueue:
    """Who may be due when: earlier than true for those seen since, never later.

    Each peer has one entry that counts, at the time in ``_known``. An end that moves away leaves
    the entry where it is (it is put back when it proves too early); one that moves closer, as a
    shorter TTL does, gets a new entry, and the former one is skipped when its time comes.
    """

    def __init__(self, rows: Iterable[tuple[str, RegistrationRow]] = ()) -> None:
        """Start with the registrations that are there."""
        self._known: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self.rebuild(rows)

    def rebuild(self, rows: Iterable[tuple[str, RegistrationRow]]) -> None:
        """Start over with these registrations."""
        self._known = {name: expires_at(row) for name, row in rows if row.ttl_min}
        self._heap = [(ends, name) for name, ends in self._known.items()]
        heapq.heapify(self._heap)

    def applied(self, _index: int, applied: Applied) -> None:
        """Hear of a command; made to listen to the machine."""
        for change in applied.changes:
            if change.table is Table.REGISTRATIONS and isinstance(change.row, RegistrationRow):
                self.note(str(change.key), change.row)

    def note(self, name: str, row: RegistrationRow) -> None:
        """Take up a registration."""
        if row.ttl_min and expires_at(row) < self._known.get(name, float("inf")):
            self._push(name, expires_at(row))

    def due(self, state: State, clock: float, floor: float) -> list[str]:
        """Return at most BATCH peers whose grace is over; they are looked at again later.

        ``floor``: nobody counts as seen earlier than at this time of the replicated clock.
        """
        due: list[str] = []
        again: list[tuple[float, str]] = []
        while self._heap and self._heap[0][0] <= clock and len(due) < BATCH:
            ends, name = heapq.heappop(self._heap)
            if self._known.get(name) != ends:
                continue
            row = state.registrations.get(name)
            if row is None or not row.ttl_min:
                del self._known[name]
                continue
            ends = expires_at(row._replace(seen=max(row.seen, floor)))
            if ends <= clock:
                due.append(name)
            # One that is due stays until the command is applied, which takes its TTL away.
            again.append((max(ends, clock + TICK_S / 2), name))
        for ends, name in again:
            self._push(name, ends)
        return due

    def _push(self, name: str, ends: float) -> None:
        self._known[name] = ends
        heapq.heappush(self._heap, (ends, name))


class LeaderClock:
    """Decides what a leader proposes at each tick; knows when it became one."""

    def __init__(self) -> None:
        """Start as no leader."""
        self._term: int | None = None
        self._ticked = 0.0  # own time of the last tick
        self._since = 0.0  # own time
        self._base = 0.0  # replicated clock at that moment

    def tick(self, now: float, term: int | None, state: State, queue: DueQueue) -> Command | None:
        """Return the command to propose now. ``term`` is None while this is not the leader."""
        if term is None or not state.founded:
            self._term = None
            return None
        if term != self._term or now - self._ticked > AWAY_S:
            self._term, self._since, self._base = term, now, state.clock
        self._ticked = now
        clock = max(state.clock, self._base + now - self._since)
        due = queue.due(state, clock, self._base)
        return Expire(clock, tuple(due)) if due else Advance(clock)
