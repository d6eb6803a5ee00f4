"""The last changes of the feed's tables: what a responder missed while it was away."""

from collections import deque

from wgmap_cluster.fsm.results import Applied
from wgmap_cluster.fsm.rows import FEED_TABLES, Change

MAX_CHANGES = 200_000  # rows; the oldest go


class Ring:
    """Changes by index, bounded; only those that the feed carries."""

    def __init__(self, index: int, most: int = MAX_CHANGES) -> None:
        """Start empty: all changes after ``index`` will be there."""
        self._base = index
        self._most = most
        self._size = 0
        self._entries: deque[tuple[int, tuple[Change, ...]]] = deque()

    def add(self, index: int, applied: Applied) -> tuple[Change, ...]:
        """Keep the changes of a command; returns those that the feed carries."""
        changes = tuple(change for change in applied.changes if change.table in FEED_TABLES)
        if changes:
            self._entries.append((index, changes))
            self._size += len(changes)
        while self._size > self._most:
            self._base, dropped = self._entries.popleft()
            self._size -= len(dropped)
        return changes

    def since(self, index: int) -> list[tuple[int, tuple[Change, ...]]] | None:
        """Return what came after ``index``; None where some of it is no longer here."""
        if index < self._base:
            return None
        newer = []
        for entry in reversed(self._entries):
            if entry[0] <= index:
                break
            newer.append(entry)
        return newer[::-1]
