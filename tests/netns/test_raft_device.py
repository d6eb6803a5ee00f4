"""The Raft port is the mesh device's alone.

[ rfA: mesh fd00:77::1 ]====[ rfB: mesh fd00:77::2 ]    servers ms1, ms2
[      under           ]----[      under           ]    whoever is not a server
"""

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.raftprocess import ServerProcess

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces"),
]
MEMBERS = [["ms1", "[fd00:77::1]:4343"], ["ms2", "[fd00:77::2]:4343"]]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=10)


class Net:
    """Two namespaces with two cables."""

    def __init__(self) -> None:
        self.names = [f"rf{os.getpid()}{letter}" for letter in "AB"]
        for name in self.names:
            ip("netns", "add", name)
        self.cable("under")
        self.cable("mesh")

    def cable(self, device: str) -> None:
        one, two = self.names
        ip(
            "link",
            "add",
            device,
            "netns",
            one,
            "type",
            "veth",
            "peer",
            "name",
            device,
            "netns",
            two,
        )
        for number, name in enumerate(self.names, 1):
            ip("-n", name, "link", "set", device, "up")
            if device == "mesh":
                address = f"fd00:77::{number}/64"
                ip("-n", name, "address", "add", address, "dev", device, "nodad")

    def close(self) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], check=False, timeout=10)


@pytest.fixture
def net() -> Iterator[Net]:
    net = Net()
    try:
        yield net
    finally:
        net.close()


async def reaches(net: Net, device: str) -> bool:
    """Tell whether someone in B gets a connection to the port in A over a device."""
    code = (
        "import socket,sys\n"
        "s = socket.socket(socket.AF_INET6); s.settimeout(1.5)\n"
        "s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, sys.argv[1].encode())\n"
        "sys.exit(s.connect_ex(('fd00:77::1', 4343)) != 0)\n"
    )
    arguments = ("ip", "netns", "exec", net.names[1], "python3", "-c", code, device)
    process = await asyncio.create_subprocess_exec(*arguments)
    return await asyncio.wait_for(process.wait(), 10) == 0


async def written(server: ServerProcess, timeout_s: float = 20.0) -> None:
    """Write until a proposal is applied."""
    async with asyncio.timeout(timeout_s):
        proposal = await server.call("propose", command="x")
        while proposal["outcome"] != "applied":
            await asyncio.sleep(0.05)
            proposal = await server.call("propose", command="x")


async def link_local(net: Net) -> str:
    """Return A's link-local address on the underlay; it takes a moment to be usable."""
    async with asyncio.timeout(10):
        while True:
            command = ("ip", "-n", net.names[0], "-j", "-6", "address", "show", "dev", "under")
            process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
            addresses = json.loads((await process.communicate())[0])[0]["addr_info"]
            if addresses and not addresses[0].get("tentative"):
                return str(addresses[0]["local"])
            await asyncio.sleep(0.1)


@pytest.mark.slow
async def test_only_the_mesh_device_reaches_the_port(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAFT_DEVICE", "mesh")
    servers = [ServerProcess(name, tmp_path, json.dumps(MEMBERS), "{}") for name in ("ms1", "ms2")]
    try:
        for server, name in zip(servers, net.names, strict=True):
            await server.start("ip", "netns", "exec", name)
        await written(servers[0])
        via = await link_local(net)
        route = ("route", "add", "fd00:77::1/128", "via", via, "dev", "under", "metric", "1")
        ip("-n", net.names[1], "-6", *route)
        assert await reaches(net, "mesh")
        assert not await reaches(net, "under")  # although the kernel has the address
        ip("-n", net.names[1], "-6", "route", "del", "fd00:77::1/128", "dev", "under")

        ip("-n", net.names[0], "link", "del", "mesh")
        net.cable("mesh")
        await written(servers[1])
    finally:
        for server in servers:
            if server.running:
                await server.kill()
