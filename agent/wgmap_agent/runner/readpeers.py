"""Reading WireGuard devices for the engine, no more often than it is worth.

A device tells of all its peers or of none (10,000 of them: 40 ms of its time and 3 MB), and to make
values of all that takes us three times as long; of a few peers it is a look. Requests for one
device that wait are one request; after a read the next one waits ``REST`` times what it cost.
The engine asks less often than that: this is the bound, whatever it asks.
"""

import asyncio
from collections import Counter
from collections.abc import Callable

from wgmap.errors import WgmapError
from wgmap.wg.device import Device, DeviceState
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.readings import cost_s
from wgmap_agent.engine.types import ReadPeers, Tunnel

REST = 3.0  # reads take at most a quarter of the time


class PeerReader:
    """Reads on request; the answers go to ``done``, failures to ``failed``."""

    def __init__(
        self,
        devices: dict[Tunnel, Device],
        done: Callable[[ReadPeers, DeviceState], None],
        failed: Callable[[ReadPeers, WgmapError], None],
    ) -> None:
        self._devices = devices
        self._done = done
        self._failed = failed
        self._tasks: dict[Tunnel, asyncio.Task[None]] = {}
        self._wanted: dict[Tunnel, ReadPeers] = {}  # by the next read, which has not begun
        self._not_before: dict[Tunnel, float] = {}
        self._peers: Counter[Tunnel] = Counter()  # that each had when it was read as a whole

    def want(self, asked: ReadPeers) -> None:
        """Read a device soon: what is in it now, or newer."""
        tunnel = asked.tunnel
        self._wanted[tunnel] = _both(self._wanted.get(tunnel), asked)
        if tunnel not in self._tasks:
            self._tasks[tunnel] = asyncio.create_task(self._serve(tunnel))

    async def close(self) -> None:
        """Stop reading."""
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, tunnel: Tunnel) -> None:
        while tunnel in self._wanted:
            await self._rest(tunnel)
            await self._read(self._wanted.pop(tunnel))  # what is asked for until here, this answers
        del self._tasks[tunnel]

    async def _rest(self, tunnel: Tunnel) -> None:
        wait = self._not_before.get(tunnel, 0.0) - asyncio.get_running_loop().time()
        if wait > 0:
            await asyncio.sleep(wait)

    async def _read(self, asked: ReadPeers) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            state = await _state(self._devices[asked.tunnel], asked.keys)
        except WgmapError as error:
            self._rested(asked.tunnel, began)
            self._failed(asked, error)
            return
        if asked.keys is None:
            self._peers[asked.tunnel] = len(state.peers)
        self._rested(asked.tunnel, began)
        self._done(asked, state)

    def _rested(self, tunnel: Tunnel, began: float) -> None:
        ended = asyncio.get_running_loop().time()
        self._not_before[tunnel] = ended + REST * cost_s(ended - began, self._peers[tunnel])


def _both(one: ReadPeers | None, other: ReadPeers) -> ReadPeers:
    """Return one request for two."""
    if one is None or other.keys is None:
        return other
    return one if one.keys is None else ReadPeers(one.tunnel, one.keys | other.keys)


async def _state(device: Device, keys: frozenset[PublicKey] | None) -> DeviceState:
    """Read a device; of a few peers only what is said of them."""
    if keys is None:
        return await device.read()
    look = await device.look()
    found = ((key, look.peer(key)) for key in keys)
    peers = {key: peer for key, peer in found if peer is not None}
    return DeviceState(device.name, None, 0, peers)
