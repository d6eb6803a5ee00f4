"""What does not fit is told to its sender, before a tunnel stands and after; what fits passes.

The underlay is used over IPv6 or IPv4, whichever a peer registered first: the MTU has to fit the
larger headers (80 bytes: IPv6 40, UDP 8, WireGuard 32).
"""

import asyncio
import contextlib
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.agents import AgentHost, World, make_agent, make_server, world
from support.eventually import eventually
from support.map_server import MapServer
from support.netns import Namespace

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]

HEADERS = {4: 20 + 8, 6: 40 + 8}  # of an echo request
MEGABYTE = 1 << 20
PORT = 7070


@contextlib.contextmanager
def two_agents(
    directory: Path, mtu: int, underlay_mtu: int, version: int = 4
) -> Iterator[tuple[World, MapServer, AgentHost, AgentHost]]:
    """Make two agents that have not spoken yet and do not run yet.

    They take the addresses of the version by which they reach the map server before others.
    """
    with world("fc") as net:
        server = make_server(net, 1, version)
        agents = [make_agent(net, number, directory, [server]) for number in (1, 2)]
        for source, target in net.wires[::2]:
            for end in (source, target):
                net.underlay.ip("link", "set", end, "mtu", str(underlay_mtu))
            net.underlay.ip("link", "set", target, "nomaster")
            net.underlay.ip("link", "set", source, "master", net.bridge)  # no delay: no wire
        for agent in agents:
            agent.namespace.ip("link", "set", agent.port, "mtu", str(underlay_mtu))
            text = agent.config.read_text().replace("[tun]\n", f"[tun]\nmtu = {mtu}\n")
            agent.config.write_text(text)
        yield net, server, agents[0], agents[1]


@contextlib.asynccontextmanager
async def serving(server: MapServer, *agents: AgentHost):  # type: ignore[no-untyped-def]
    """Run the map server and the agents."""
    server.start()
    try:
        await asyncio.gather(*(asyncio.to_thread(agent.start) for agent in agents))
        yield
    finally:
        await server.close()


async def ping(source: Namespace, target: str, size: int) -> str:
    """Send one packet of that size that must not be fragmented; return what ping said."""
    payload = size - HEADERS[6 if ":" in target else 4]
    command = f"ping -n -M do -c 1 -W 5 -s {payload} {target} 2>&1"  # local errors go to stderr
    return await asyncio.to_thread(source.run, "sh", "-c", command, timeout_s=15, check=False)


async def too_big(source: Namespace, target: str, mtu: int) -> None:
    """Check that the sender of one byte too much is told the MTU."""
    said = await ping(source, target, mtu + 1)
    assert re.search(rf"(mtu ?[=:] ?|mtu=){mtu}\b", said), said
    assert " 0 received" in said


async def fits(source: Namespace, target: str, mtu: int) -> None:
    said = await ping(source, target, mtu)
    assert " 1 received" in said, said


@pytest.mark.parametrize(
    ("mtu", "underlay_mtu", "version"),
    [(1420, 1500, 4), (1412, 1492, 4), (1412, 1492, 6), (1400, 1500, 4)],
)
async def test_senders_are_told_and_what_fits_passes(
    tmp_path: Path, mtu: int, underlay_mtu: int, version: int
) -> None:
    """Own and forwarded packets of both families: cold, then through the tunnel."""
    with two_agents(tmp_path, mtu, underlay_mtu, version) as (_, server, one, two):
        async with serving(server, one, two):
            assert "too large" not in one.log()
            for interface in one.interfaces:
                assert f"mtu {mtu} " in one.namespace.ip("link", "show", interface)
            ways = [(one.lan, two.lan_hosts[0]), (one.lan, two.lan_hosts[1])]
            ways += [(one.namespace, two.eids[0]), (one.namespace, two.eids[1])]
            for source, target in ways:
                await too_big(source, target, mtu)
            assert one.status()["peers"] == []  # nothing was captured: the kernel told them
            for source, target in ways:
                await fits(source, target, mtu)
                await too_big(source, target, mtu)
            check_underlay(one, version)


@pytest.mark.parametrize(("mtu", "fits_mtu"), [(1420, 1412)])
async def test_an_mtu_that_does_not_fit_is_warned_of(
    tmp_path: Path, mtu: int, fits_mtu: int
) -> None:
    with two_agents(tmp_path, mtu, 1492) as (_, server, one, _two):
        async with serving(server, one):
            await eventually(lambda: "too large for the underlay" in one.log())
            assert f"fits={fits_mtu}" in one.log()


@pytest.mark.parametrize(
    ("mtu", "underlay_mtu", "version"), [(1420, 1500, 4), (1412, 1492, 4), (1412, 1492, 6)]
)
@pytest.mark.parametrize("family", [0, 1])
async def test_a_connection_works_from_its_first_segment(
    tmp_path: Path, mtu: int, underlay_mtu: int, version: int, family: int
) -> None:
    """Its SYN is the first packet that is held; then a megabyte of full segments."""
    with two_agents(tmp_path, mtu, underlay_mtu, version) as (_, server, one, two):
        async with serving(server, one, two):
            took = await transfer(one.lan, two.lan, two.lan_hosts[family])
            assert took < 1.0  # a SYN that was lost is sent again after a second
            assert one.status()["counters"]["held.packets"] >= 1
            check_underlay(one, version)


def check_underlay(agent: AgentHost, version: int) -> None:
    """Check over which underlay its tunnel goes."""
    [peer] = agent.status()["peers"]
    assert ("[" in peer["endpoint"]) is (version == 6), peer


async def transfer(source: Namespace, target: Namespace, address: str) -> float:
    """Send a megabyte over a new connection; return how long the connection took to stand."""
    loop = asyncio.get_running_loop()
    kind = socket.AF_INET6 if ":" in address else socket.AF_INET
    with target.entered():
        listener = socket.create_server((address, PORT), family=kind)
    with source.entered():
        client = socket.socket(kind, socket.SOCK_STREAM)
    with listener, client:
        listener.setblocking(False)
        client.setblocking(False)
        accepting = asyncio.create_task(loop.sock_accept(listener))
        began = loop.time()
        async with asyncio.timeout(30):
            await loop.sock_connect(client, (address, PORT))
            took = loop.time() - began
            connection, _ = await accepting
            with connection:
                sending = asyncio.create_task(loop.sock_sendall(client, bytes(MEGABYTE)))
                received = 0
                while received < MEGABYTE:
                    received += len(await loop.sock_recv(connection, 1 << 16))
                await sending
    return took
