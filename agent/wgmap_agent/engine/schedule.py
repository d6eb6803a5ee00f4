"""What is due when, for many things at once: looking at all of them each time would cost too much.

An agent whose host is scanned has a thousand questions out, and asks after the next deadline with
every packet.
"""

import heapq
from collections.abc import Callable
from typing import Generic, TypeVar

Name = TypeVar("Name", int, str)


class Schedule(Generic[Name]):
    """Names and when each is due, which ``due_at`` knows (None: it is gone).

    A time that moves back must be noted; one that moves on is found out.
    """

    def __init__(self, due_at: Callable[[Name], float | None]) -> None:
        self._due_at: Callable[[Name], float | None] = due_at
        self._heap: list[tuple[float, Name]] = []

    def note(self, name: Name) -> None:
        """Take in that something is due, or earlier than before."""
        at = self._due_at(name)
        if at is not None:
            heapq.heappush(self._heap, (at, name))

    def next(self) -> float | None:
        """Return when the first is due."""
        while self._heap:
            at, name = self._heap[0]
            now_at = self._due_at(name)
            if now_at == at:
                return at
            heapq.heappop(self._heap)
            if now_at is not None and now_at > at:
                heapq.heappush(self._heap, (now_at, name))
        return None

    def take(self, now: float) -> list[Name]:
        """Take out what is due; whatever is due again later must be noted."""
        taken: dict[Name, None] = {}
        while (at := self.next()) is not None and at <= now:
            taken[heapq.heappop(self._heap)[1]] = None
        return list(taken)
