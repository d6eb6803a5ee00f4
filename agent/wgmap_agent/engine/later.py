"""Actions that nobody waits for: they make room for those that a first packet waits for."""

from collections import deque

from wgmap_agent.engine.types import Action

MOST = 1024  # the oldest is done at once to make room


class Later:
    """Actions and when they are due, in the order in which they were added."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, Action]] = deque()

    def add(self, at: float, action: Action) -> None:
        """Have an action done at that time, or with the ones before it."""
        self._waiting.append((at, action))

    def due(self, now: float) -> list[Action]:
        """Take out what is due, and what there is no room for."""
        taken: list[Action] = []
        while self._waiting and (self._waiting[0][0] <= now or len(self._waiting) > MOST):
            taken.append(self._waiting.popleft()[1])
        return taken

    def deadline(self) -> float | None:
        """Return when ``due`` has something to do."""
        return self._waiting[0][0] if self._waiting else None
