"""Reading WireGuard devices for the engine, no more often than it is worth.

A read costs time in proportion to the peers (10,000 of them: 79 ms and 3 MB). Requests for one
device that wait are one request; after a read the next one waits ``REST`` times what it took.
The engine asks less often than that: this is the bound, whatever it asks.
"""

import asyncio
from collections.abc import Callable

from wgmap.errors import WgmapError
from wgmap.wg.device import Device, DeviceState
from wgmap_agent.engine.types import ReadPeers, Tunnel

REST = 3.0  # reads take at most a quarter of the time


class PeerReader:
    """Reads on request; the answers go to ``done``, failures to ``failed``."""

    def __init__(
        self,
        devices: dict[Tunnel, Device],
        done: Callable[[Tunnel, DeviceState], None],
        failed: Callable[[ReadPeers, WgmapError], None],
    ) -> None:
        self._devices = devices
        self._done = done
        self._failed = failed
        self._tasks: dict[Tunnel, asyncio.Task[None]] = {}
        self._again: set[Tunnel] = set()  # asked for while a read was under way
        self._not_before: dict[Tunnel, float] = {}

    def want(self, tunnel: Tunnel) -> None:
        """Read a device soon: what is in it now, or newer."""
        if tunnel in self._tasks:
            self._again.add(tunnel)
            return
        self._tasks[tunnel] = asyncio.create_task(self._serve(tunnel))

    async def close(self) -> None:
        """Stop reading."""
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, tunnel: Tunnel) -> None:
        wanted = True
        while wanted:
            await self._rest(tunnel)
            self._again.discard(tunnel)  # what is asked for until here, this read answers
            await self._read(tunnel)
            wanted = tunnel in self._again
        del self._tasks[tunnel]

    async def _rest(self, tunnel: Tunnel) -> None:
        wait = self._not_before.get(tunnel, 0.0) - asyncio.get_running_loop().time()
        if wait > 0:
            await asyncio.sleep(wait)

    async def _read(self, tunnel: Tunnel) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            state = await self._devices[tunnel].read()
        except WgmapError as error:
            self._not_before[tunnel] = loop.time() + REST * (loop.time() - began)
            self._failed(ReadPeers(tunnel), error)
            return
        ended = loop.time()
        self._not_before[tunnel] = ended + REST * (ended - began)
        self._done(tunnel, state)
