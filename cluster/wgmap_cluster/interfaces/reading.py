"""Readings of a device shared by all who ask: it costs time in proportion to its peers."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from wgmap import clock

INTERVAL_S = 0.01
MAX_PAUSE_S = 5.0
# A pause lasts as long as the reading before it. Who has moved waits for both where others move all
# the time, and the device's process has half a processor to itself then: it is that which takes
# the time of a reading. Where nobody moved for a while, there is no pause to wait for.
REST = 1

What = TypeVar("What")


class DeviceReader(Generic[What]):
    """Reads something of a device at most every INTERVAL_S."""

    def __init__(self, read: Callable[[], Awaitable[What]], interval_s: float = INTERVAL_S) -> None:
        """Take what reads it."""
        self._read_once = read
        self._interval_s = interval_s
        self._turn = asyncio.Lock()
        self._earliest = 0.0
        self._next: asyncio.Task[What] | None = None
        self._current: asyncio.Task[What] | None = None  # keeps it from being collected
        self._last: What | None = None
        self._last_at = 0.0

    async def fresh(self) -> What:
        """Return a reading that begins after this call; raises DeviceError.

        All who ask before it begins share it.
        """
        return await asyncio.shield(self.refresh())

    def refresh(self) -> "asyncio.Task[What]":
        """Have another reading begin after this call, without waiting for it."""
        if self._next is None:
            self._next = asyncio.create_task(self._read())
            self._next.add_done_callback(_retrieve)
        return self._next

    async def underway(self) -> None:
        """Wait for the reading that has begun, if there is one, whatever comes of it."""
        if self._current is not None:
            await asyncio.wait((self._current,))

    def recent(self, max_age_s: float) -> What | None:
        """Return the last reading, if it began at most so long ago."""
        return self._last if clock.now() - self._last_at <= max_age_s else None

    async def _read(self) -> What:
        async with self._turn:
            await asyncio.sleep(max(0.0, self._earliest - clock.now()))
            self._current, self._next = self._next, None  # who asks from here on wants a later one
            began = clock.now()
            try:
                found = self._last = await self._read_once()
            finally:
                self._current = None
                took = clock.now() - began
                # Bounded: the clock goes on while a machine is suspended.
                self._earliest = began + took + min(MAX_PAUSE_S, REST * took)
                self._earliest = max(self._earliest, began + self._interval_s)
            self._last_at = began
            return found


def _retrieve(task: asyncio.Task[What]) -> None:
    """Take the error of a reading whose askers have all gone, so that it is not reported lost."""
    if not task.cancelled():
        task.exception()
