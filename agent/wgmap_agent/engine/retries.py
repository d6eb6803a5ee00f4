"""Actions that failed and are worth trying again: routes and the saved state.

Peers are repaired by the next reading of their device, datagrams by their own timers. When there
are too many the newest is dropped: what fails by the hundred is not cured by trying again.
"""

from wgmap_agent.engine.counters import Counters
from wgmap_agent.engine.table import Table
from wgmap_agent.engine.types import Action, AddRoutes, DeleteRoutes, Save, SavedState

MAX_RETRIES = 256
RETRY_S = 1.0


class Retries:
    """Failed actions and when they are tried again."""

    def __init__(self, table: Table, counters: Counters) -> None:
        self._table = table
        self._counters = counters
        self._waiting: list[tuple[float, Action]] = []

    def failed(self, now: float, action: Action) -> None:
        """Take in a failed action."""
        if not isinstance(action, AddRoutes | DeleteRoutes | Save):
            return
        if len(self._waiting) >= MAX_RETRIES:
            self._counters.add("retry.dropped")
            return
        self._waiting.append((now + RETRY_S, action))

    def due(self, now: float, state: SavedState) -> list[Action]:
        """Return what is tried again, as far as it still holds; ``state``: what to save now."""
        due = [action for at, action in self._waiting if at <= now]
        self._waiting = [(at, action) for at, action in self._waiting if at > now]
        actions = [still for one in due if (still := self._still(one, state)) is not None]
        if actions:
            self._counters.add("retry.tried", len(actions))
        return actions

    def deadline(self) -> float | None:
        """Return when ``due`` has something to do."""
        return min((at for at, _ in self._waiting), default=None)

    def _still(self, action: Action, state: SavedState) -> Action | None:
        if isinstance(action, AddRoutes):
            prefixes = tuple(one for one in action.prefixes if self._table.get(one))
            return AddRoutes(prefixes) if prefixes else None
        if isinstance(action, DeleteRoutes):
            prefixes = tuple(one for one in action.prefixes if not self._table.get(one))
            return DeleteRoutes(prefixes) if prefixes else None
        return Save(state)
