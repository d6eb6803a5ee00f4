"""The interfaces follow the tables: peers of the control and the mesh device."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import IPv6Address
from typing import Any

from wgmap.addresses import IPAddress
from wgmap.log import Log
from wgmap.net.netlink import Network
from wgmap.wg import probe
from wgmap.wg.device import Backend, DeviceError
from wgmap_cluster.config import MeshSection, ServerConfig
from wgmap_cluster.fsm.machine import Machine
from wgmap_cluster.fsm.results import Applied
from wgmap_cluster.fsm.rows import PeerRow, ServerRow, Table
from wgmap_cluster.interfaces.control import ControlPeers
from wgmap_cluster.interfaces.mesh_runner import MeshPeers
from wgmap_cluster.replica.founding import server_row

COUNT_EVERY_S = 2.0
_LOG = Log("replica.tunnels")


class Tunnels:
    """Keeps the peers of this server's interfaces, of those that it has.

    The supervisor has set the interfaces up; when one vanishes, ``run`` ends with a DeviceError,
    and the replica starts anew on the interface that the supervisor has made again.
    """

    def __init__(
        self, config: ServerConfig, control: ControlPeers | None, mesh: MeshPeers | None
    ) -> None:
        self._bootstrap = {one.name: server_row(config, one) for one in config.bootstrap.server}
        self._control = control
        self._mesh = mesh
        self._machine: Machine | None = None
        self.reachable_agents: int | None = None

    def follow(self, machine: Machine) -> None:
        """Take the tables now and whenever they change; call it before the log starts."""
        self._machine = machine
        machine.listen(self._applied)
        machine.listen_restored(self._restored)
        self._restored()

    def outer(self, _name: str, _row: PeerRow, source: IPAddress) -> IPAddress | None:
        """Return where a control tunnel comes from, as far as is known at once."""
        if self._control is None:
            return source
        return self._control.last_outer(IPv6Address(source))

    def parts(self) -> list[Coroutine[Any, Any, None]]:
        """Return what must run all the time."""
        parts = []
        if self._control is not None:
            parts += [self._control.run(), self._count(self._control)]
        if self._mesh is not None:
            parts.append(self._mesh.run())
        return parts

    def _servers(self) -> Mapping[str, ServerRow]:
        """Return the servers; before there is a cluster, those that are to found it."""
        assert self._machine is not None, "followed"
        return self._machine.state.servers or self._bootstrap

    def _restored(self) -> None:
        assert self._machine is not None, "followed"
        if self._control is not None:
            self._control.replace(self._machine.state.peers)
        if self._mesh is not None:
            self._mesh.update(self._servers())

    def _applied(self, _index: int, applied: Applied) -> None:
        for change in applied.changes:
            if change.table is Table.PEERS and self._control is not None:
                assert isinstance(change.key, str)
                assert change.row is None or isinstance(change.row, PeerRow)
                self._control.change(change.key, change.row)
            elif change.table is Table.SERVERS and self._mesh is not None:
                self._mesh.update(self._servers())

    async def _count(self, control: ControlPeers) -> None:
        while True:
            try:
                self.reachable_agents = await control.reachable()
            except DeviceError as error:  # ``run`` decides whether that is the end
                _LOG.warning("agents not counted", error=error)
            await asyncio.sleep(COUNT_EVERY_S)


@asynccontextmanager
async def opened(config: ServerConfig) -> AsyncIterator[Tunnels]:
    """Open the interfaces of this server; raises WgmapError. They stay at the end."""
    async with AsyncExitStack() as stack:
        control = mesh = None
        if not config.control.unprotected or config.mesh is not None:
            backend = await probe.choose(config.server.state_dir)
            if not config.control.unprotected:
                device = await backend.open(config.control.interface)
                stack.push_async_callback(device.close)
                control = ControlPeers(device)
            if config.mesh is not None:
                mesh = await _mesh(stack, backend, config, config.mesh)
        yield Tunnels(config, control, mesh)


async def _mesh(
    stack: AsyncExitStack, backend: Backend, config: ServerConfig, section: MeshSection
) -> MeshPeers:
    own = next(one for one in config.bootstrap.server if one.name == config.server.name)
    network = await stack.enter_async_context(Network())
    device = await backend.open(section.interface)
    stack.push_async_callback(device.close)
    return MeshPeers(device, network, own.mesh_key, own.mesh_address)
