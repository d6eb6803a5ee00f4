"""Saves in the background: a slow disk must not hold up a packet.

While one save is under way, the newest of those that wait wins.
"""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from wgmap.errors import WgmapError
from wgmap.log import Log

State = TypeVar("State")

log = Log("agent.saver")


class Saver(Generic[State]):
    """Hands states to a blocking ``save``, one at a time, on another thread."""

    def __init__(
        self,
        save: Callable[[State], None],
        failed: Callable[[State, WgmapError], None],
    ) -> None:
        """Take what saves, or raises WgmapError, and whom to tell then."""
        self._save = save
        self._failed = failed
        self._next: State | None = None
        self._task: asyncio.Task[None] | None = None

    def __call__(self, state: State) -> None:
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
            except WgmapError as error:
                log.warning("state not saved", reason=error)
                self._failed(state, error)
        self._task = None
