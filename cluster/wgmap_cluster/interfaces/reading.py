"""Readings of a device shared by all who ask: it costs time in proportion to its peers."""

import asyncio

from wgmap import clock
from wgmap.wg.device import Device, DeviceState

INTERVAL_S = 0.05
MAX_PAUSE_S = 5.0
SHARE = 4  # of the time at most 1 / (1 + SHARE) goes into readings, however many peers there are


class DeviceReader:
    """Reads a device at most every INTERVAL_S."""

    def __init__(self, device: Device, interval_s: float = INTERVAL_S) -> None:
        self._device = device
        self._interval_s = interval_s
        self._turn = asyncio.Lock()
        self._earliest = 0.0
        self._next: asyncio.Task[DeviceState] | None = None
        self._current: asyncio.Task[DeviceState] | None = None  # keeps it from being collected
        self._last: DeviceState | None = None
        self._last_at = 0.0

    async def fresh(self) -> DeviceState:
        """Return a reading that begins after this call; raises DeviceError.

        All who ask before it begins share it.
        """
        return await asyncio.shield(self.refresh())

    def refresh(self) -> "asyncio.Task[DeviceState]":
        """Have another reading begin after this call, without waiting for it."""
        if self._next is None:
            self._next = asyncio.create_task(self._read())
            self._next.add_done_callback(_retrieve)
        return self._next

    def recent(self, max_age_s: float) -> DeviceState | None:
        """Return the last reading, if it began at most so long ago."""
        return self._last if clock.now() - self._last_at <= max_age_s else None

    async def _read(self) -> DeviceState:
        async with self._turn:
            await asyncio.sleep(max(0.0, self._earliest - clock.now()))
            self._current, self._next = self._next, None  # who asks from here on wants a later one
            began = clock.now()
            try:
                self._last = await self._device.read()
            finally:
                took = clock.now() - began
                # Bounded: the clock goes on while a machine is suspended.
                self._earliest = began + took + min(MAX_PAUSE_S, SHARE * took)
                self._earliest = max(self._earliest, began + self._interval_s)
            self._last_at = began
            return self._last


def _retrieve(task: asyncio.Task[DeviceState]) -> None:
    """Take the error of a reading whose askers have all gone, so that it is not reported lost."""
    if not task.cancelled():
        task.exception()
