"""A server's interfaces on a real machine: adopted, corrected, and no way through.

[s: server, control interface] ---- 192.0.2.0/24, 2001:db8:6::/64 ---- [o: its underlay]
   |
[a: enrolled agent with a control tunnel to s]
"""

import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from typing import TypeAlias

import pytest
import pytest_asyncio

from support.netns import Namespace, Netbed, netbed, wait_until
from wgmap.addresses import Endpoint, control_address, host_prefix
from wgmap.net.netlink import Network
from wgmap.wg.device import Backend, Device, DeviceConfig, PeerConfig
from wgmap.wg.keys import PrivateKey, PublicKey
from wgmap_cluster.config import ControlSection, MeshSection
from wgmap_cluster.interfaces.setup import TunnelSpec, control_tunnel, ensure, mesh_tunnel

pytestmark = pytest.mark.netns

CONTROL = ipaddress.IPv6Network("fd77:676d:6170::/64")
OWN = ipaddress.IPv6Address("fd77:676d:6170::1")
Make: TypeAlias = Callable[[TunnelSpec], Awaitable[Device]]
STRANGER = PublicKey(bytes(31) + b"1")


@pytest.fixture
def bed() -> Iterator[Netbed]:
    with netbed("wg") as bed:
        yield bed


@pytest.fixture
def server(bed: Netbed) -> Namespace:
    return bed.namespace("s")


@pytest_asyncio.fixture
async def network(server: Namespace) -> AsyncIterator[Network]:
    with server.entered():
        network = await Network().__aenter__()
    yield network
    await network.__aexit__()


@pytest.fixture
def spec(bed: Netbed) -> TunnelSpec:
    section = ControlSection(interface=bed.name("c"), prefix=CONTROL)
    return control_tunnel(section, PrivateKey.generate(), OWN)


@pytest.fixture
def make(server: Namespace, network: Network, backend: Backend) -> Make:
    async def ensured(spec: TunnelSpec) -> Device:
        with server.entered():
            return await ensure(backend, network, spec)

    return ensured


async def test_a_control_interface_as_the_configuration_says(
    server: Namespace, make: Make, spec: TunnelSpec
) -> None:
    device = await make(spec)
    state = await device.read()
    assert (state.public_key, state.listen_port) == (spec.key.public, 51822)
    assert "mtu 1420" in server.ip("link", "show", spec.interface)
    assert f"inet6 {OWN}/128" in server.ip("-6", "addr", "show", "dev", spec.interface)
    route = server.ip("route", "get", "fd77:676d:6170::1234")
    assert f"dev {spec.interface}" in route
    assert f"src {OWN}" in route
    await device.close()


async def test_what_stands_is_not_touched_and_what_differs_is_put_right(
    server: Namespace, make: Make, spec: TunnelSpec
) -> None:
    device = await make(spec)
    await device.configure(DeviceConfig(peers=(PeerConfig(STRANGER, keepalive_s=7),)))
    server.ip("addr", "add", "fd77:676d:6170::bad/128", "dev", spec.interface)
    server.ip("link", "set", spec.interface, "mtu", "1300")
    await device.close()
    second = replace(spec, port=51999)
    device = await make(second)
    state = await device.read()
    assert state.listen_port == 51999
    assert state.peers[STRANGER].keepalive_s == 7, "peers belong to ControlPeers"
    addresses = server.ip("-6", "addr", "show", "dev", spec.interface)
    assert "::bad" not in addresses
    assert f"{OWN}/128" in addresses
    assert "mtu 1420" in server.ip("link", "show", spec.interface)
    await device.close()


async def test_a_mesh_interface_has_its_address_and_leaves_routes_to_others(
    bed: Netbed, server: Namespace, network: Network, make: Make
) -> None:
    address = ipaddress.ip_address("fd77:6d65::1")
    spec = mesh_tunnel(MeshSection(interface=bed.name("m")), PrivateKey.generate(), address)
    device = await make(spec)
    assert (await device.read()).listen_port == 51821
    assert f"{address}/128" in server.ip("-6", "addr", "show", "dev", spec.interface)
    assert await network.routes(spec.interface) == []
    await device.close()


async def test_an_agent_reaches_the_server_and_nothing_behind_it(
    bed: Netbed, backend: Backend, network: Network, make: Make, spec: TunnelSpec
) -> None:
    server = Namespace(bed.name("s"))
    behind, agent = bed.namespace("o"), bed.namespace("a")
    bed.veth(server, behind, ["2001:db8:6::1/64"], ["2001:db8:6::2/64"], label="o")
    bed.veth(server, agent, ["192.0.2.1/24"], ["192.0.2.11/24"], label="a")
    server.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")  # for reasons of its own
    behind.ip("route", "add", str(CONTROL), "via", "2001:db8:6::1")
    device = await make(spec)
    key = PrivateKey.generate()
    own = control_address(CONTROL, key.public)
    peer = PeerConfig(key.public, allowed_ips=(host_prefix(own),))
    await device.configure(DeviceConfig(peers=(peer,)))

    with agent.entered():
        tunnel = await backend.open(bed.name("t"))
    endpoint = Endpoint(ipaddress.ip_address("192.0.2.1"), 51822)
    everything = (ipaddress.ip_network("::/0"),)  # what a hostile agent would say
    await tunnel.configure(
        DeviceConfig(key, peers=(PeerConfig(spec.key.public, endpoint, everything),))
    )
    agent.ip("addr", "add", f"{own}/128", "dev", tunnel.name, "nodad")
    agent.ip("link", "set", tunnel.name, "up")
    agent.ip("-6", "route", "add", "default", "dev", tunnel.name)

    def reaches(address: str) -> bool:
        return "1 received" in agent.run("ping", "-c1", "-W1", address, check=False)

    wait_until(lambda: reaches(str(OWN)), "the server through the tunnel")
    assert not reaches("2001:db8:6::2")
    await network.permit_forwarding(spec.interface)
    assert reaches("2001:db8:6::2"), "without the rule the same packet goes through"
    await network.forbid_forwarding(spec.interface)
    await network.forbid_forwarding(spec.interface)
    assert not reaches("2001:db8:6::2")
    # A rule names its interface and outlives it; the next one of ours takes it away.
    server.ip("link", "add", "gone0", "type", "veth", "peer", "name", "gone1")
    await network.forbid_forwarding("gone0")
    assert "iif gone0" in server.ip("rule")
    server.ip("link", "del", "gone0")
    await network.forbid_forwarding(spec.interface)
    for family in ("-4", "-6"):
        rules = server.ip(family, "rule")
        assert "gone0" not in rules
        assert rules.count(f"iif {spec.interface} ") == 1
    await device.close()
    await tunnel.close()
