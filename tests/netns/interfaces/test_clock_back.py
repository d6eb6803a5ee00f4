"""An agent whose wall clock went back is heard again: real WireGuard, its own timestamps.

[s: server's control interface] ---- [a: an agent's device]

The server first takes an initiation from tomorrow (``support.initiation``), so that for it the
agent's clock has gone back by a day. ``WGMAP_LONG=1`` (``make test-promises``) waits for the real
silence, 180 s and up to a minute until it is looked for; the usual run shortens both.
"""

import asyncio
import contextlib
import ipaddress
import os
import socket
import time
from collections.abc import AsyncIterator

import pytest

from support.initiation import RESPONSE, initiation
from support.netns import PATIENCE, Namespace, Netbed, netbed
from wgmap.addresses import Endpoint, control_address
from wgmap.clock import now
from wgmap.net.netlink import Network
from wgmap.wg.device import Backend, Device, DeviceConfig, PeerConfig
from wgmap.wg.keys import PrivateKey
from wgmap_chaos.flow import socket_in
from wgmap_cluster.config import ControlSection
from wgmap_cluster.fsm.rows import PeerRow
from wgmap_cluster.interfaces import control, plan
from wgmap_cluster.interfaces.control import ControlPeers
from wgmap_cluster.interfaces.setup import control_tunnel, ensure

LONG = bool(os.environ.get("WGMAP_LONG"))
pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(600)]

CONTROL = ipaddress.IPv6Network("fd77:676d:6170::/64")
OWN = ipaddress.IPv6Address("fd77:676d:6170::1")
SERVER = Endpoint(ipaddress.ip_address("192.0.2.1"), 51822)
DAY_S = 86_400
REFUSED_S = 12.0  # two initiations of an agent: WireGuard repeats them every 5 s
NEVER_S = 1e9
INITIATION_BYTES = 148


def take_tomorrow(agent: Namespace, key: PrivateKey, server: PrivateKey) -> None:
    """Have the server take an initiation of the agent's that is a day ahead."""
    with socket_in(agent.name, socket.AF_INET) as sender:
        sender.setblocking(True)
        sender.settimeout(0.5 * PATIENCE)
        for _ in range(20):
            wall_s = time.clock_gettime(time.CLOCK_REALTIME) + DAY_S
            message = initiation(key, server.public, wall_s)
            sender.sendto(message, (str(SERVER.address), SERVER.port))
            with contextlib.suppress(TimeoutError):
                assert sender.recv(1024)[0] == RESPONSE
                return
    pytest.fail("the server does not take the initiation")


async def handshake(device: Device, within_s: float) -> bool:
    """Wait for a handshake of the device's peer."""
    end = now() + within_s
    while now() < end:
        (peer,) = (await device.read()).peers.values()
        if peer.last_handshake is not None:
            return True
        await asyncio.sleep(0.05)
    return False


@contextlib.asynccontextmanager
async def server(
    bed: Netbed, backend: Backend, namespace: Namespace, key: PrivateKey, agent: PrivateKey
) -> AsyncIterator[ControlPeers]:
    """Run the server's part of it, with one agent in the table."""
    section = ControlSection(interface=bed.name("c"), prefix=CONTROL)
    address = control_address(CONTROL, agent.public).packed
    with namespace.entered():
        network = Network()
        await network.__aenter__()
        device = await ensure(backend, network, control_tunnel(section, key, OWN))
    peers = ControlPeers(device)
    task = asyncio.create_task(peers.run())
    peers.replace({"a1": PeerRow(bytes(agent.public), address, 0, ())})
    try:
        await peers.settled()
        yield peers
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await device.close()
        await network.__aexit__(None, None, None)


async def test_an_agent_whose_clock_went_back_is_heard_again(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent_s, check_s = plan.SILENT_S, control.CHECK_S
    if not LONG:
        silent_s = check_s = 1.0
        monkeypatch.setattr(control, "CHECK_S", check_s)
        monkeypatch.setattr(plan, "SILENT_S", NEVER_S)  # the control: nobody is made anew
    key, agent = PrivateKey.generate(), PrivateKey.generate()
    with netbed("cb") as bed:
        servers, agents = bed.namespace("s"), bed.namespace("a")
        bed.veth(servers, agents, [f"{SERVER.address}/24"], ["192.0.2.11/24"])
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(server(bed, backend, servers, key, agent))
            await asyncio.to_thread(take_tomorrow, agents, agent, key)
            with agents.entered():
                device = await backend.open(bed.name("t"))
            stack.push_async_callback(device.close)
            peer = PeerConfig(key.public, SERVER, (ipaddress.ip_network(CONTROL),), 25)
            await device.configure(DeviceConfig(agent, 51_822, peers=(peer,)))
            agents.ip("link", "set", device.name, "up")

            assert not await handshake(device, REFUSED_S), "what is from yesterday is refused"
            (state,) = (await device.read()).peers.values()
            assert state.tx_bytes >= 2 * INITIATION_BYTES, "it was tried"
            if not LONG:
                monkeypatch.setattr(plan, "SILENT_S", silent_s)
            within_s = silent_s + check_s + REFUSED_S
            assert await handshake(device, within_s * PATIENCE), "it is heard again"
