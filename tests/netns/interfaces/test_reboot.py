"""A server that was rebooted reaches its agents by itself: real tunnels, agents that are silent.

[s: server] ---- 192.0.2.0/24 ---- [a: every agent, a WireGuard device each]

``WGMAP_LONG=1`` (``make test-promises``) has a hundred agents, and wants them within 2 s; the usual
run has twenty, and no clock: the machine may be busy.
"""

import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.netns import Namespace, Netbed, netbed, room_for_devices, wait_until
from wgmap.addresses import Endpoint, control_address
from wgmap.clock import now
from wgmap.net.netlink import Network
from wgmap.wg.device import Backend, Device, DeviceConfig, PeerConfig
from wgmap.wg.kernel import KernelBackend
from wgmap.wg.keys import PrivateKey
from wgmap_cluster.config import ControlSection
from wgmap_cluster.fsm.rows import PeerRow
from wgmap_cluster.interfaces import control
from wgmap_cluster.interfaces.control import ControlPeers
from wgmap_cluster.interfaces.setup import control_tunnel, ensure

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(300)]

_LOG = logging.getLogger(__name__)
LONG = bool(os.environ.get("WGMAP_LONG"))
AGENTS = 100 if LONG else 20
REACHED_S = 2.0  # promised for a hundred
CONTROL = ipaddress.IPv6Network("fd77:676d:6170::/64")
OWN = ipaddress.IPv6Address("fd77:676d:6170::1")
SERVER = Endpoint(ipaddress.ip_address("192.0.2.1"), 51822)


class Machines:
    """The server's machine, which can be rebooted, and the agents' devices."""

    def __init__(self, bed: Netbed, backend: Backend) -> None:
        self.bed, self.backend = bed, backend
        self.server, self.agents = bed.namespace("s"), bed.namespace("a")
        bed.veth(self.server, self.agents, [f"{SERVER.address}/24"], ["192.0.2.11/24"])
        self.key = PrivateKey.generate()
        self.section = ControlSection(interface=bed.name("c"), prefix=CONTROL)
        self.keys = [PrivateKey.generate() for _ in range(AGENTS)]
        self.devices: list[Device] = []

    async def start_agents(self, stack: contextlib.AsyncExitStack) -> None:
        """Make the agents' devices; their keepalive starts the first handshakes."""
        for number, key in enumerate(self.keys):
            with self.agents.entered():
                device = await self.backend.open(self.bed.name(f"t{number}"))
            stack.push_async_callback(device.close)
            self.devices.append(device)
            peer = PeerConfig(self.key.public, SERVER, (ipaddress.ip_network(CONTROL),), 25)
            await device.configure(DeviceConfig(key, 52_000 + number, peers=(peer,)))
            self.agents.ip("link", "set", device.name, "up")

    async def silence_agents(self) -> None:
        """Let no agent start anything by itself from now on."""
        for device in self.devices:
            quiet = PeerConfig(self.key.public, keepalive_s=0, update_only=True)
            await device.configure(DeviceConfig(peers=(quiet,)))

    def rows(self) -> dict[str, PeerRow]:
        """The table of peers, with all of them."""
        return {
            f"a{number}": PeerRow(
                bytes(key.public), control_address(CONTROL, key.public).packed, 0, ()
            )
            for number, key in enumerate(self.keys)
        }

    @contextlib.asynccontextmanager
    async def running(self, saved: Path) -> AsyncIterator[ControlPeers]:
        """Run the server's part of it."""
        with self.server.entered():
            network = Network()
            await network.__aenter__()
            spec = control_tunnel(self.section, self.key, OWN)
            device = await ensure(self.backend, network, spec)
        peers = ControlPeers(device, saved)
        task = asyncio.create_task(peers.run())
        peers.replace(self.rows())
        try:
            yield peers
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await device.close()
            await network.__aexit__(None, None, None)

    def reboot(self) -> None:
        """Take away everything that runs on the server's machine, and so its interface."""
        for pid in self.server.pids():
            os.kill(pid, signal.SIGKILL)
        if isinstance(self.backend, KernelBackend):  # no process carries it
            self.server.ip("link", "delete", self.section.interface)
        wait_until(lambda: not _has(self.server, self.section.interface), "the interface is gone")


def _has(namespace: Namespace, interface: str) -> bool:
    return interface in namespace.ip("-o", "link", "show")


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


async def _all_reached(peers: ControlPeers, deadline_s: float) -> float:
    """Wait until all agents are; return how long that took, in seconds."""
    began = now()
    async with asyncio.timeout(deadline_s):
        while await peers.reachable() < AGENTS:  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0.05)
    return now() - began


async def test_a_rebooted_server_reaches_silent_agents_by_itself(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "CHECK_S", 0.5)  # the endpoints are saved so often
    monkeypatch.setattr(control, "COUNT_CACHED_S", 0.0)
    saved = tmp_path / "control-endpoints"
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(room_for_devices(AGENTS))
        bed = stack.enter_context(netbed("rb"))
        machines = Machines(bed, backend)
        async with machines.running(saved) as peers:
            await machines.start_agents(stack)
            await _all_reached(peers, 60.0)
            await machines.silence_agents()
            async with asyncio.timeout(20.0):
                while _lines(saved) < AGENTS:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
        machines.reboot()
        async with machines.running(saved) as peers:
            took = await _all_reached(peers, 30.0)
    _LOG.info("%d agents reached in %.2f s", AGENTS, took)
    # Nobody else starts anything, so that they were reached at all says that the server did it.
    assert not LONG or took < REACHED_S


async def test_without_its_endpoints_it_is_deaf_to_them(backend: Backend, tmp_path: Path) -> None:
    """The control of the other test: nobody but the server starts anything."""
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(room_for_devices(AGENTS))
        bed = stack.enter_context(netbed("rb"))
        machines = Machines(bed, backend)
        async with machines.running(tmp_path / "one") as peers:
            await machines.start_agents(stack)
            await _all_reached(peers, 60.0)
            await machines.silence_agents()
        machines.reboot()
        async with machines.running(tmp_path / "another") as peers:
            await peers.settled()
            with pytest.raises(TimeoutError):
                await _all_reached(peers, REACHED_S)
            assert await peers.reachable() == 0
