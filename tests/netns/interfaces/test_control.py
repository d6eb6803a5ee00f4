"""Where a control tunnel comes from, on real tunnels.

[s: server] ---- 192.0.2.0/24 ---- [a: agent, which moves from .11 to .12]
"""

import asyncio
import contextlib
import ipaddress

import pytest

from support.netns import netbed, wait_until
from wgmap.addresses import Endpoint, control_address
from wgmap.net.netlink import Network
from wgmap.wg.device import Backend, DeviceConfig, PeerConfig
from wgmap.wg.keys import PrivateKey
from wgmap_cluster.config import ControlSection
from wgmap_cluster.fsm.rows import PeerRow
from wgmap_cluster.interfaces.control import ControlPeers
from wgmap_cluster.interfaces.setup import control_tunnel, ensure

pytestmark = pytest.mark.netns

CONTROL = ipaddress.IPv6Network("fd77:676d:6170::/64")
OWN = ipaddress.IPv6Address("fd77:676d:6170::1")
HOME, AWAY = (ipaddress.ip_address(f"192.0.2.{number}") for number in (11, 12))


async def test_an_agent_that_moves_is_known_at_its_new_address_at_once(backend: Backend) -> None:
    key, server_key = PrivateKey.generate(), PrivateKey.generate()
    own = control_address(CONTROL, key.public)
    with netbed("wg") as bed:
        server, agent = bed.namespace("s"), bed.namespace("a")
        _, port = bed.veth(server, agent, ["192.0.2.1/24"], [f"{HOME}/24"])
        section = ControlSection(interface=bed.name("c"), prefix=CONTROL)
        async with contextlib.AsyncExitStack() as stack:
            with server.entered():
                network = await stack.enter_async_context(Network())
                spec = control_tunnel(section, server_key, OWN)
                device = await ensure(backend, network, spec)
            with agent.entered():
                tunnel = await backend.open(bed.name("t"))
            peers = ControlPeers(device)
            running = asyncio.create_task(peers.run())
            peers.replace({"a": PeerRow(bytes(key.public), own.packed, 0, ())})
            await peers.settled()

            endpoint = Endpoint(ipaddress.ip_address("192.0.2.1"), 51822)
            to_server = PeerConfig(server_key.public, endpoint, (ipaddress.ip_network(CONTROL),))
            await tunnel.configure(DeviceConfig(key, peers=(to_server,)))
            agent.ip("addr", "add", f"{own}/128", "dev", tunnel.name, "nodad")
            agent.ip("link", "set", tunnel.name, "up")
            agent.ip("route", "add", str(CONTROL), "dev", tunnel.name)

            def says_hello() -> bool:
                return "1 received" in agent.run("ping", "-c1", "-W1", str(OWN), check=False)

            wait_until(says_hello, "the tunnel")
            assert await peers.is_outer(own, HOME)
            assert not await peers.is_outer(own, AWAY)
            assert await peers.reachable() == 1

            agent.ip("addr", "del", f"{HOME}/24", "dev", port)
            agent.ip("addr", "add", f"{AWAY}/24", "dev", port)
            # wireguard-go would go on sending from the old address for 15 s.
            restated = PeerConfig(server_key.public, endpoint, update_only=True)
            await tunnel.configure(DeviceConfig(peers=(restated,)))
            wait_until(says_hello, "the tunnel from the new address")
            assert await peers.is_outer(own, AWAY)
            assert not await peers.is_outer(own, HOME)

            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            await device.close()
            await tunnel.close()
