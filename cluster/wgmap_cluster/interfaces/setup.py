"""The control and the mesh interface as a server needs them before it binds a port.

Interfaces survive restarts of the daemon: what is there and right is not touched.
"""

from dataclasses import dataclass
from ipaddress import IPv6Address, ip_interface

from wgmap.addresses import IPAddress, IPNetwork, host_prefix
from wgmap.errors import WgmapError
from wgmap.net.netlink import Network
from wgmap.net.plan import Route, difference
from wgmap.net.rtnetlink import SCOPE_UNIVERSE
from wgmap.wg.device import Backend, Device, DeviceConfig
from wgmap.wg.keys import PrivateKey
from wgmap_cluster.config import ControlSection, MeshSection

MTU = 1420


@dataclass(frozen=True, slots=True)
class TunnelSpec:
    """What an interface has to be; ``routes`` go over it with its own address as their source.

    With ``routes`` None they are left to someone else (the mesh's follow the servers).
    """

    interface: str
    key: PrivateKey
    port: int
    address: IPAddress
    routes: tuple[IPNetwork, ...] | None = None
    mtu: int = MTU


def control_tunnel(section: ControlSection, key: PrivateKey, address: IPv6Address) -> TunnelSpec:
    """Return the control interface: every agent is behind it, so the whole /64 is."""
    return TunnelSpec(section.interface, key, section.port, address, (section.prefix,))


def mesh_tunnel(section: MeshSection, key: PrivateKey, address: IPAddress) -> TunnelSpec:
    """Return the mesh interface; MeshPeers adds a route for each server."""
    return TunnelSpec(section.interface, key, section.port, address)


async def ensure(backend: Backend, network: Network, spec: TunnelSpec) -> Device:
    """Adopt or make the interface and apply what differs; raises DeviceError, NetworkError.

    Nothing that comes in by it is forwarded, whatever the machine forwards otherwise: an agent
    must not reach the servers' underlay through its control tunnel. Peers are not touched.
    """
    device = await backend.open(spec.interface)
    try:
        await _configure(device, spec)
        await _connect(network, spec)
    except WgmapError:
        await device.close()
        raise
    return device


async def _connect(network: Network, spec: TunnelSpec) -> None:
    await network.forbid_forwarding(spec.interface)
    await network.up(spec.interface, spec.mtu)
    await _set_address(network, spec)
    if spec.routes is not None:
        routes = [Route(prefix, spec.interface, spec.address) for prefix in spec.routes]
        await network.set_routes(spec.interface, routes)


async def _configure(device: Device, spec: TunnelSpec) -> None:
    state = await device.read()
    # Setting a private key ends all sessions of a device, even where it is the same one.
    change = DeviceConfig(
        private_key=None if state.public_key == spec.key.public else spec.key,
        listen_port=None if state.listen_port == spec.port else spec.port,
    )
    if change != DeviceConfig():
        await device.configure(change)


async def _set_address(network: Network, spec: TunnelSpec) -> None:
    present = (await network.addresses()).get(spec.interface, ())
    own = ip_interface(host_prefix(spec.address))
    have = [state.address for state in present if state.scope == SCOPE_UNIVERSE]
    change = difference([own], have)
    for address in change.add:
        await network.add_address(spec.interface, address)
    for address in change.delete:
        await network.delete_address(spec.interface, address)
