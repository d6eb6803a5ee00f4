"""Light clients, which are WireGuard without a device, against a real one."""

import asyncio
import contextlib
import ipaddress
import socket

import pytest

from support.netns import netbed
from wgmap.addresses import Endpoint, control_address
from wgmap.net.netlink import Network
from wgmap.wg.device import Backend, DeviceConfig, PeerConfig
from wgmap.wg.keys import PrivateKey
from wgmap_chaos.flow import socket_in
from wgmap_chaos.load.tunnel import ServerPlace, Tunnel
from wgmap_cluster.config import ControlSection
from wgmap_cluster.interfaces.setup import control_tunnel, ensure

pytestmark = [pytest.mark.netns]
PREFIX = ipaddress.IPv6Network("fd77:676d:6170::/64")
OWN = ipaddress.IPv6Address("fd77:676d:6170::1")


async def test_a_message_goes_in_and_another_comes_back(backend: Backend) -> None:
    key = PrivateKey.generate()
    address = control_address(PREFIX, key.public)
    with netbed("lt") as bed:
        server, client = bed.namespace("s"), bed.namespace("c")
        bed.veth(server, client, ["192.0.2.1/24"], ["192.0.2.10/24"])
        server_key = PrivateKey.generate()
        section = ControlSection(interface=bed.name("c"), prefix=PREFIX)
        async with contextlib.AsyncExitStack() as stack:
            with server.entered():
                network = await stack.enter_async_context(Network())
                device = await ensure(backend, network, control_tunnel(section, server_key, OWN))
            stack.push_async_callback(device.close)
            peer = PeerConfig(key.public, allowed_ips=(ipaddress.ip_network(address),))
            await device.configure(DeviceConfig(peers=(peer,)))
            far = stack.enter_context(socket_in(server.name, socket.AF_INET6))
            far.bind((str(OWN), 4342))
            near = stack.enter_context(socket_in(client.name, socket.AF_INET))

            def send(data: bytes, target: tuple[str, int]) -> None:
                near.sendto(data, target)

            place = ServerPlace("ms1", ("192.0.2.1", section.port), server_key.public, OWN)
            tunnel = Tunnel(key, address, place, send)
            assert await answered(tunnel, near, far) == b"an answer"
            # The same again after the server's device has lost its sessions, as in a reboot.
            gone = PeerConfig(key.public, remove=True)
            await device.configure(DeviceConfig(peers=(gone,)))
            await device.configure(DeviceConfig(peers=(peer,)))
            assert await answered(tunnel, near, far) == b"an answer"
            # And where the server begins: it lost its sessions, and knows where the client is.
            there = Endpoint(ipaddress.ip_address("192.0.2.10"), near.getsockname()[1])
            peer = PeerConfig(key.public, there, (ipaddress.ip_network(address),))
            await device.configure(DeviceConfig(peers=(gone, peer)))
            loop = asyncio.get_running_loop()
            await loop.sock_sendto(far, b"news", (str(address), 4342))
            assert await asyncio.wait_for(hear(tunnel, near), 20) == b"news"


async def answered(tunnel: Tunnel, near: socket.socket, far: socket.socket) -> bytes | None:
    """Say something until it has arrived, answer it, and return what came back."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(20):
        arrived = asyncio.create_task(loop.sock_recvfrom(far, 2048))
        while not arrived.done():
            tunnel.say(b"a question")
            with contextlib.suppress(TimeoutError):  # nothing but the handshake's answer comes
                await asyncio.wait_for(hear(tunnel, near), 0.4)
        data, source = arrived.result()
        assert data == b"a question"
        await loop.sock_sendto(far, b"an answer", source)
        return await hear(tunnel, near)


async def hear(tunnel: Tunnel, near: socket.socket) -> bytes:
    """Take what comes until there is a message in it."""
    loop = asyncio.get_running_loop()
    while True:
        data = await loop.sock_recv(near, 2048)
        message = tunnel.hear(data)
        if message is not None:
            return message
