"""The agent's three interfaces, brought to what the configuration says by differences.

Whatever is there and right is left alone, so a restart of the agent disturbs no tunnel. What is
ours and no longer wanted goes: addresses of the interface, routes of our protocol, peers of the
control tunnel.
"""

import contextlib
import ipaddress
from collections.abc import Awaitable, Iterable, Sequence
from functools import partial
from typing import TypeAlias

from wgmap.addresses import IPAddress, IPNetwork, host_prefix
from wgmap.net import plan, sysctl
from wgmap.net.errors import NetworkError
from wgmap.net.netlink import Network
from wgmap.net.plan import IPInterface, Route, Rule
from wgmap.net.rtnetlink import SCOPE_LINK, SCOPE_UNIVERSE
from wgmap.wg.device import Backend, Device, DeviceConfig, DeviceState, PeerConfig
from wgmap.wg.keys import PrivateKey, PublicKey
from wgmap.wg.userspace import exists
from wgmap_agent.config import AgentConfig
from wgmap_agent.engine.types import Identity, ServerInfo

Place: TypeAlias = tuple[str, int]  # a data interface and its port

# A peer may own a prefix of the overlay's own length: its route then goes before the TUN's.
TUN_METRIC = 4342
RULES = 4342  # priority of our policy rules: before the main table
# RFC 7600, section 4.8: an address that stands for none. Of link scope no source is chosen from it.
DUMMY = ipaddress.IPv4Interface("192.0.0.8/32")


class Sources:
    """The own host EIDs: the preferred source of every route into the overlay, by family."""

    def __init__(self, prefixes: Sequence[IPNetwork], table: int = plan.MAIN_TABLE) -> None:
        """Take the agent's prefixes; only those of a single address can be a source."""
        self._table = table
        self.hosts = tuple(one for one in prefixes if one.num_addresses == 1)
        self._by_version: dict[int, IPAddress] = {}
        for host in self.hosts:
            self._by_version.setdefault(host.version, host.network_address)

    def route(self, prefix: IPNetwork, interface: str, metric: int = 0) -> Route:
        """Make a route with its source; a router's prefix has none, the kernel picks."""
        return Route(prefix, interface, self._by_version.get(prefix.version), metric, self._table)


async def set_up_tun(network: Network, config: AgentConfig) -> None:
    """Give the TUN its MTU and the host EIDs, which every route needs; raises NetworkError."""
    name = config.tun.interface
    await _bring_up(network, name, config.tun.mtu)
    hosts = (ipaddress.ip_interface(one) for one in Sources(config.agent.prefixes).hosts)
    await _set_addresses(network, name, hosts)


async def route_overlay(network: Network, config: AgentConfig) -> None:
    """Route the overlay to the TUN, from where first packets come; raises NetworkError."""
    name = config.tun.interface
    sources = Sources(config.agent.prefixes, config.table)
    routes = [sources.route(prefix, name, TUN_METRIC) for prefix in config.agent.overlay]
    await network.set_routes(name, routes, config.table)
    await network.set_routes(name, (), _other_table(config))


def rules(config: AgentConfig, links: Iterable[IPNetwork] = ()) -> list[Rule]:
    """Return the policy rules: none where the overlay is routed in the main table.

    The tunnels' own packets, own prefixes and the networks of the underlay's ``links`` are left to
    the main table, all else is looked up among the overlay's routes first. Packets of the tunnels
    are known by their mark, and by their ports as well: a strict rp_filter looks for the way back
    of what comes in, without a mark. It does so for ARP too, hence the links.
    """
    if not config.underlay.fwmark:
        return []
    ports = (config.control.port, *(port for _, port in config.data.places))
    found: list[Rule] = []
    for family in (4, 6):
        main = partial(Rule, family=family, table=plan.MAIN_TABLE)
        found.append(main(priority=RULES, fwmark=config.underlay.fwmark))
        found += [main(priority=RULES, udp_source_port=port) for port in ports]
        found += [
            main(priority=RULES, destination=prefix)
            for prefix in dict.fromkeys((*config.agent.prefixes, *links))
            if prefix.version == family
        ]
        found.append(Rule(family=family, priority=RULES + 1, table=config.table))
    return found


def _other_table(config: AgentConfig) -> int:
    """Return where routes are left over from another configuration."""
    return plan.MAIN_TABLE if config.underlay.fwmark else config.underlay.table


async def open_control(
    backend: Backend, network: Network, config: AgentConfig, who: Identity, key: PrivateKey
) -> Device:
    """Open the control tunnel with a peer for each server; DeviceError, NetworkError.

    Each server may send from its own /128 only.
    """
    section = config.control
    device = await backend.open(section.interface)
    state = await device.read()
    await device.configure(
        DeviceConfig(
            private_key=None if state.public_key == key.public else key,
            listen_port=None if state.listen_port == section.port else section.port,
            fwmark=config.underlay.fwmark,
            peers=_server_changes(state, who.servers, section.keepalive_s),
        )
    )
    await _bring_up(network, section.interface, config.tun.mtu)
    own = who.control_address
    await _set_addresses(network, section.interface, (ipaddress.ip_interface(own),))
    await network.set_routes(section.interface, [Route(section.prefix, section.interface, own)])
    return device


async def open_data(
    backend: Backend, network: Network, config: AgentConfig, key: PrivateKey, place: Place
) -> tuple[Device, DeviceState]:
    """Open an interface of data tunnels at its name and port; DeviceError, NetworkError.

    Peers that are there stay; returns also what the device was before.
    """
    interface, port = place
    device = await backend.open(interface)
    state = await device.read()
    change = DeviceConfig(
        private_key=None if state.public_key == key.public else key,
        listen_port=None if state.listen_port == port else port,
        fwmark=config.underlay.fwmark,
    )
    await device.configure(change)
    await _bring_up(network, interface, config.tun.mtu)
    await _accept_before_routed(network, interface)
    return device, state


async def place_of(backend: Backend, config: AgentConfig, key: PublicKey) -> Place:
    """Tell which of the two data interfaces has this key; the first where none has."""
    for place in config.data.places:
        if not exists(place[0]):
            continue
        device = await backend.open(place[0])
        try:
            if (await device.read()).public_key == key:
                return place
        finally:
            await device.close()
    return config.data.places[0]


async def remove_other(backend: Backend, config: AgentConfig, place: Place) -> None:
    """Remove the data interface that a rotation left behind: its key is gone. DeviceError."""
    for name, _ in config.data.places:
        if name != place[0] and exists(name):
            await backend.remove(name)


class DataRoutes:
    """The routes to a data interface; each call is one batch."""

    def __init__(self, network: Network, config: AgentConfig, interface: str) -> None:
        self._network = network
        self._interface = interface
        self._table, self._other = config.table, _other_table(config)
        self._sources = Sources(config.agent.prefixes, config.table)

    async def adopt(self, state: DeviceState) -> None:
        """Make the routes those of the device's peers; raises NetworkError.

        An agent that died between a peer and its route left one without the other.
        """
        owned = (prefix for peer in state.peers.values() for prefix in peer.allowed_ips)
        routes = [self._sources.route(prefix, self._interface) for prefix in owned]
        await self._network.set_routes(self._interface, routes, self._table)
        await self._network.set_routes(self._interface, (), self._other)

    async def present(self) -> list[IPNetwork]:
        """Return what is routed over the interface; raises NetworkError."""
        return [route.prefix for route in await self._network.routes(self._interface, self._table)]

    async def add(self, prefixes: Sequence[IPNetwork]) -> None:
        """Add or replace; raises NetworkError."""
        await self._network.change_routes(replace=self._made(prefixes))

    def begin_add(self, prefixes: Sequence[IPNetwork]) -> Awaitable[None] | None:
        """Add at once where that is possible; see ``Network.begin_routes``."""
        return self._network.begin_routes(self._made(prefixes))

    async def delete(self, prefixes: Sequence[IPNetwork]) -> None:
        """Remove, whatever their source; absent ones are no error. Raises NetworkError."""
        routes = [Route(prefix, self._interface, table=self._table) for prefix in prefixes]
        await self._network.change_routes(delete=routes)

    def _made(self, prefixes: Sequence[IPNetwork]) -> list[Route]:
        return [self._sources.route(prefix, self._interface) for prefix in prefixes]


def _server_changes(
    state: DeviceState, servers: Sequence[ServerInfo], keepalive_s: int
) -> tuple[PeerConfig, ...]:
    wanted = {
        server.control_key: PeerConfig(
            server.control_key,
            endpoint=server.endpoint,
            allowed_ips=(host_prefix(server.control_address),),
            keepalive_s=keepalive_s,
        )
        for server in servers
    }
    gone = tuple(PeerConfig(key, remove=True) for key in state.peers if key not in wanted)
    return gone + tuple(wanted.values())


async def _bring_up(network: Network, interface: str, mtu: int) -> None:
    _no_link_local(interface)
    await network.up(interface, mtu)


async def _set_addresses(network: Network, interface: str, wanted: Iterable[IPInterface]) -> None:
    present = (await network.addresses()).get(interface, ())
    change = plan.difference(
        wanted, (state.address for state in present if state.scope == SCOPE_UNIVERSE)
    )
    for address in change.add:
        await network.add_address(interface, address)
    for address in change.delete:
        await network.delete_address(interface, address)


async def _accept_before_routed(network: Network, interface: str) -> None:
    """Loosen a reverse path filter: a peer's packets may come before its routes are there.

    The loose one lets through what there is any way back for, and the overlay is routed to the
    TUN. But on an interface without an address it is as strict as the strict one, hence the dummy.
    Who may send from which address is WireGuard's to check, and it does.
    Where /proc/sys cannot be written (a container) some of the first replies may be dropped.
    """
    with contextlib.suppress(NetworkError):
        modes = [sysctl.read("net", "ipv4", "conf", n, "rp_filter") for n in ("all", interface)]
        if max(modes) == "0":
            return
        await network.add_address(interface, DUMMY, SCOPE_LINK)
        sysctl.write("net", "ipv4", "conf", interface, "rp_filter", value=2)


def _no_link_local(interface: str) -> None:
    """Make no link-local address: nobody could answer it, and the kernel would solicit routers.

    Where /proc/sys cannot be written (a container) there is one, which disturbs nothing.
    """
    with contextlib.suppress(NetworkError):
        sysctl.write("net", "ipv6", "conf", interface, "addr_gen_mode", value=1)
