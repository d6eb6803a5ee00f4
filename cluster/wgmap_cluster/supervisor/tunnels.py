"""The interfaces of a server and the UDP socket of its map service."""

import asyncio
import errno
import ipaddress
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NoReturn

from wgmap.addresses import control_address
from wgmap.errors import ConfigError, WgmapError
from wgmap.lisp.messages import LISP_PORT
from wgmap.log import Log
from wgmap.net.errors import NetworkError
from wgmap.net.netlink import Network
from wgmap.udp import open_socket
from wgmap.wg import probe
from wgmap.wg.keys import PrivateKey
from wgmap_cluster.config import BootstrapServer, ServerConfig
from wgmap_cluster.interfaces.setup import TunnelSpec, control_tunnel, ensure, mesh_tunnel
from wgmap_cluster.supervisor import keys

LOOK_EVERY_S = 0.5
RETRY_S = 2.0
_LOG = Log("supervisor.tunnels")


@dataclass(frozen=True, slots=True)
class Plan:
    """Which tunnels a server has, and where its map service listens."""

    tunnels: tuple[TunnelSpec, ...]
    listen: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int
    interface: str | None  # None: an unprotected listener


def plan(config: ServerConfig) -> Plan:
    """Read the keys and decide; raises ConfigError."""
    own = next((s for s in config.bootstrap.server if s.name == config.server.name), None)
    tunnels = []
    if config.mesh is not None:
        if own is None:
            raise ConfigError("[mesh] wants a [[bootstrap.server]] of this server: its addresses")
        key = _own_key(config, keys.MESH_KEY, own.mesh_key)
        tunnels.append(mesh_tunnel(config.mesh, key, own.mesh_address))
    listen = config.control.listen
    if listen is not None:
        return Plan(tuple(tunnels), listen.address, listen.port, None)
    key = _own_key(config, keys.CONTROL_KEY, own.control_key if own else None)
    address = _control_address(config, key, own)
    tunnels.append(control_tunnel(config.control, key, address))
    return Plan(tuple(tunnels), address, LISP_PORT, config.control.interface)


def _own_key(config: ServerConfig, name: str, wanted: bytes | None) -> PrivateKey:
    key = keys.load(config.server.state_dir, name)
    if wanted is not None and key.public != wanted:
        path = config.server.state_dir / name
        raise ConfigError(f"bootstrap.server {config.server.name}: its key is not that of {path}")
    return key


def _control_address(
    config: ServerConfig, key: PrivateKey, own: BootstrapServer | None
) -> ipaddress.IPv6Address:
    if own is None:
        return control_address(config.control.prefix, key.public)
    if own.control_address not in config.control.prefix:
        raise ConfigError(f"control_address {own.control_address} is not in control.prefix")
    return own.control_address


class Tunnels:
    """Keeps the interfaces there and the socket bound to the one that is."""

    def __init__(self, plan: Plan, network: Network) -> None:
        """``open`` it before anything else."""
        self._plan = plan
        self._network = network
        self._indices: dict[str, int | None] = {}
        self.udp: socket.socket

    async def open(self) -> None:
        """Set up the interfaces and bind the socket; raises WgmapError."""
        for spec in self._plan.tunnels:
            await self._ensure(spec)
        self.udp = open_socket(self._plan.listen, self._plan.port, self._plan.interface)

    async def watch(self) -> NoReturn:
        """Make interfaces anew that are gone, and bind to those that others made anew."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            for spec in self._plan.tunnels:
                if _index(spec.interface) != self._indices[spec.interface]:
                    await self._renew(spec)

    async def _renew(self, spec: TunnelSpec) -> None:
        _LOG.warning("interface gone or made anew", interface=spec.interface)
        try:
            await self._ensure(spec)
            if spec.interface == self._plan.interface:
                self._bind()
        except WgmapError as error:
            _LOG.error("interface not set up", interface=spec.interface, reason=error)
            await asyncio.sleep(RETRY_S)

    async def _ensure(self, spec: TunnelSpec) -> None:
        backend = await probe.choose()
        device = await ensure(backend, self._network, spec)
        await device.close()
        self._indices[spec.interface] = _index(spec.interface)

    def _bind(self) -> None:
        """Bind the socket, which the responder shares, to the interface that has the name now."""
        name = (self._plan.interface or "").encode()
        try:
            self.udp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name)
        except OSError as error:
            what = f"port {self._plan.port} on {name.decode()}"
            raise NetworkError(what, error.errno or errno.EIO) from error


@asynccontextmanager
async def opened(plan: Plan) -> AsyncIterator[Tunnels]:
    """Open tunnels and socket; at the end the socket is closed, the interfaces stay."""
    async with Network() as network:
        tunnels = Tunnels(plan, network)
        await tunnels.open()
        try:
            yield tunnels
        finally:
            tunnels.udp.close()


def _index(interface: str) -> int | None:
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return None
