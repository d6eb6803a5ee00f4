"""The peers of the server's WireGuard interfaces, as the replicated tables say.

The supervisor makes the interfaces before it starts a replica; here they are only opened.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

from wgmap.addresses import IPAddress
from wgmap.errors import ConfigError
from wgmap.net.changes import Change
from wgmap.net.netlink import Network
from wgmap.wg import probe
from wgmap.wg.device import Device, DeviceError
from wgmap_cluster.config import BootstrapServer, ServerConfig
from wgmap_cluster.fsm.machine import Machine
from wgmap_cluster.fsm.results import Applied
from wgmap_cluster.fsm.rows import PeerRow, Table
from wgmap_cluster.interfaces.control import ControlPeers
from wgmap_cluster.interfaces.mesh_runner import MeshPeers
from wgmap_cluster.replica.founding import server_row

ENDPOINTS = "control-endpoints"  # in the state directory: where agents were, for after a reboot


class Tunnels(Protocol):
    """What the replica wants to know of the control tunnels."""

    async def is_outer(self, control: IPAddress, rloc: IPAddress) -> bool:
        """Tell whether that control tunnel comes from ``rloc`` now; raises DeviceError."""
        ...

    def last_outer(self, control: IPAddress) -> IPAddress | None:
        """Return where that control tunnel came from a minute ago at most; None: not known.

        Raises DeviceError.
        """
        ...

    async def reachable(self) -> int | None:
        """Count the agents whose tunnel stands; None where that is not known."""
        ...

    async def run(self) -> None:
        """Keep the peers of the interfaces until cancelled; raises DeviceError."""
        ...


class Unprotected:
    """Without a control interface: a source address is taken for what it says."""

    async def is_outer(self, control: IPAddress, rloc: IPAddress) -> bool:
        """Tell whether the two are the same."""
        return control == rloc

    def last_outer(self, control: IPAddress) -> IPAddress | None:
        """Return the same."""
        return control

    async def reachable(self) -> int | None:
        """Know nothing."""
        return None

    async def run(self) -> None:
        """Do nothing."""


class Protected:
    """The peers of the control interface follow the table of peers."""

    def __init__(self, peers: ControlPeers, machine: Machine) -> None:
        """Follow the machine from now on."""
        self._peers = peers
        self._machine = machine
        machine.listen(self._applied)
        machine.listen_restored(self._restored)

    async def is_outer(self, control: IPAddress, rloc: IPAddress) -> bool:
        """See Tunnels."""
        return control.version == 6 and await self._peers.is_outer(control, rloc)

    def last_outer(self, control: IPAddress) -> IPAddress | None:
        """See Tunnels."""
        return self._peers.last_outer(control) if control.version == 6 else None

    async def reachable(self) -> int | None:
        """See Tunnels."""
        try:
            return await self._peers.reachable()
        except DeviceError:
            return None

    async def run(self) -> None:
        """See Tunnels."""
        self._restored()
        await self._peers.run()

    def _restored(self) -> None:
        self._peers.replace(self._machine.state.peers)

    def _applied(self, _index: int, applied: Applied) -> None:
        for change in applied.changes:
            if change.table is Table.PEERS:
                row = change.row if isinstance(change.row, PeerRow) else None
                self._peers.change(str(change.key), row)


class Mesh:
    """The peers of the mesh interface follow the table of servers."""

    def __init__(
        self,
        peers: MeshPeers,
        machine: Machine,
        config: ServerConfig,
        changes: AsyncIterable[Change],
    ) -> None:
        """Follow the machine; until there is a table, the configuration names the servers.

        ``changes`` are those of this machine's addresses and routes.
        """
        self._peers = peers
        self._changes = changes
        self._machine = machine
        peers.update({each.name: server_row(config, each) for each in config.bootstrap.server})
        machine.listen(self._applied)
        machine.listen_restored(self._update)

    async def run(self) -> None:
        """Keep the tunnels; raises groups of DeviceError, NetworkError."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._peers.run())
            tasks.create_task(self._peers.follow(self._changes))

    def _applied(self, _index: int, applied: Applied) -> None:
        if any(change.table is Table.SERVERS for change in applied.changes):
            self._update()

    def _update(self) -> None:
        if self._machine.state.servers:
            self._peers.update(self._machine.state.servers)


@asynccontextmanager
async def opened(
    config: ServerConfig, machine: Machine
) -> AsyncIterator[tuple[Tunnels, Mesh | None]]:
    """Open the interfaces of this server and follow the machine; raises WgmapError."""
    async with AsyncExitStack() as stack:
        tunnels: Tunnels = Unprotected()
        if not config.control.unprotected:
            device = await _device(stack, config, config.control.interface)
            saved = config.server.state_dir / ENDPOINTS
            tunnels = Protected(ControlPeers(device, saved), machine)
        mesh = None
        if config.mesh is not None:
            network = await stack.enter_async_context(Network())
            device = await _device(stack, config, config.mesh.interface)
            own = _own(config)
            peers = MeshPeers(device, network, own.mesh_key, own.mesh_address)
            changes = stack.enter_context(network.changes())
            mesh = Mesh(peers, machine, config, changes)
        yield tunnels, mesh


async def _device(stack: AsyncExitStack, config: ServerConfig, interface: str) -> Device:
    device = await (await probe.choose(config.server.state_dir)).open(interface)
    stack.push_async_callback(device.close)
    return device


def _own(config: ServerConfig) -> BootstrapServer:
    for server in config.bootstrap.server:
        if server.name == config.server.name:
            return server
    raise ConfigError("[mesh] wants a [[bootstrap.server]] of this server: its addresses")
