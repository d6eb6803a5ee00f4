"""Keeps the tunnels between servers standing; what to do is decided in ``mesh``."""

import asyncio
import errno
from collections.abc import AsyncIterable, Mapping

from wgmap import clock
from wgmap.addresses import IPAddress, host_prefix
from wgmap.log import Log
from wgmap.net.changes import Change
from wgmap.net.errors import NetworkError
from wgmap.net.netlink import Network
from wgmap.net.plan import Route
from wgmap.wg.device import Device, DeviceConfig, DeviceError
from wgmap.wg.keys import PublicKey
from wgmap_cluster.fsm.rows import ServerRow
from wgmap_cluster.interfaces.mesh import MeshPlan, restated

RETRY_S = 0.2
MAX_FAILURES = 5
SETTLE_S = 0.1
_LOG = Log("interfaces.mesh")
_GONE = {errno.ENODEV, errno.EBADF}


class MeshPeers:
    """The peers and routes of one mesh device; give it the table, then ``run`` it."""

    def __init__(self, device: Device, network: Network, own: PublicKey, address: IPAddress):
        """``own`` and ``address``: this server's mesh key and mesh address."""
        self._device = device
        self._network = network
        self._address = address
        self._plan = MeshPlan(own)
        self._given = asyncio.Event()
        self._wake = asyncio.Event()

    def update(self, servers: Mapping[str, ServerRow]) -> None:
        """Take the whole table of servers, at the start (nothing happens before) and on changes.

        Only a table that was restored: servers that it lacks are cut off.
        """
        self._plan.update(servers)
        self._given.set()
        self._wake.set()

    def up(self, name: str) -> bool | None:
        """Tell whether the tunnel to a server stands; None: there is no such server."""
        return self._plan.up(name)

    async def run(self) -> None:
        """Keep the mesh; raises DeviceError or NetworkError when it is gone or broken."""
        await self._given.wait()
        failures = 0
        while True:
            try:
                await self._follow()
            except (DeviceError, NetworkError) as error:
                failures += 1
                if error.errno in _GONE or failures >= MAX_FAILURES:
                    raise
                await asyncio.sleep(RETRY_S * failures)
            else:
                failures = 0

    async def follow(self, changes: AsyncIterable[Change]) -> None:
        """Restate the tunnels after each change of this machine's addresses or routes.

        Else WireGuard goes on sending from an address that is gone, for about 15 s: long enough
        for the others to elect another leader. Raises NetworkError.
        """
        moved = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._restate_after(moved))
            async for _ in changes:
                moved.set()

    async def _restate_after(self, moved: asyncio.Event) -> None:
        while True:
            await moved.wait()
            await asyncio.sleep(SETTLE_S)  # one change is often told in several parts
            moved.clear()
            try:
                await self.restate()
            except DeviceError as error:  # whether the device is gone is for run() to say
                _LOG.warning("tunnels not restated", reason=error)

    async def restate(self) -> None:
        """Set every peer's endpoint again, as it is."""
        peers = restated(await self._device.read())
        if peers:
            await self._device.configure(DeviceConfig(peers=peers))

    async def _follow(self) -> None:
        """Apply the table, then watch the tunnels until it changes."""
        self._wake.clear()
        # Routes first: what is sent without a peer is dropped, what is sent without a route
        # would leave by another interface.
        routes = [
            Route(host_prefix(address), self._device.name, self._address)
            for address in self._plan.addresses
        ]
        await self._network.set_routes(self._device.name, routes)
        while not self._wake.is_set():
            changes = self._plan.step(clock.now(), await self._device.read())
            if changes:
                await self._device.configure(DeviceConfig(peers=changes))
            await self._wait()

    async def _wait(self) -> None:
        now = clock.now()
        try:
            async with asyncio.timeout(self._plan.next_step(now) - now):
                await self._wake.wait()
        except TimeoutError:
            return
