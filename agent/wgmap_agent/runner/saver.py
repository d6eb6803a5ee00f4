"""Saves in the background: a slow disk must not hold up a packet.

While one save is under way, the newest of those that wait wins.
"""

import asyncio
from collections.abc import Callable

from wgmap.log import Log
from wgmap_agent.engine.types import SavedState

log = Log("agent.saver")


class Saver:
    """Hands states to a blocking ``save``, one at a time, on another thread."""

    def __init__(self, save: Callable[[SavedState], None]) -> None:
        self._save = save
        self._next: SavedState | None = None
        self._task: asyncio.Task[None] | None = None
        self.failures = 0

    def __call__(self, state: SavedState) -> None:
        """Save this soon."""
        self._next = state
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Wait until everything is on disk."""
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        while (state := self._next) is not None:
            self._next = None
            try:
                await asyncio.to_thread(self._save, state)
            except (OSError, ValueError) as error:
                self.failures += 1
                log.warning("state not saved", reason=error)
        self._task = None
