"""Fifty new destinations at once: behind one peer, and behind several."""

import asyncio
import ipaddress
import socket
import struct
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.agents import AgentHost
from support.fleet import fleet
from support.netns import PATIENCE
from wgmap_agent.runner import statussocket

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(240)]

DESTINATIONS, EACH = 50, 2
PORT = 7878
WAIT_S = 10.0
_NUMBER = struct.Struct("!I")
_SO_RCVBUFFORCE = 33


def behind(agent: AgentHost, family: int, number: int) -> str:
    """Name one of the addresses in the agent's prefix."""
    base = (f"10.77.{agent.number}.100", f"fd88:{agent.number}::100")[family]
    return str(ipaddress.ip_address(base) + number)


def populate(agent: AgentHost) -> None:
    """Let the host behind an agent have all these addresses."""
    for family in (0, 1):
        first, last = (ipaddress.ip_address(behind(agent, family, n)) for n in (0, DESTINATIONS))
        for prefix in ipaddress.summarize_address_range(first, last):
            agent.namespace.ip("route", "add", str(prefix), "via", agent.lan_hosts[family])
            agent.lan.ip("route", "add", "local", str(prefix), "dev", "lo")


def forget(one: AgentHost, other: AgentHost) -> None:
    for agent, peer in ((one, other), (other, one)):
        statussocket.request(agent.socket, {"op": "forget", "eid": peer.eids[0]})


def opened(agent: AgentHost, kind: socket.AddressFamily, stack: ExitStack) -> socket.socket:
    with agent.lan.entered():
        receiver = stack.enter_context(socket.socket(kind, socket.SOCK_DGRAM))
    receiver.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 4 << 20)
    receiver.bind(("", PORT))
    receiver.setblocking(False)
    return receiver


def burst(one: AgentHost, targets: list[AgentHost], family: int) -> set[int]:
    """Send to every destination; return the numbers of the packets that do not arrive."""
    kind = (socket.AF_INET, socket.AF_INET6)[family]
    missing = set(range(DESTINATIONS * EACH))
    with ExitStack() as stack:
        receivers = [opened(target, kind, stack) for target in targets]
        with one.namespace.entered():
            sender = stack.enter_context(socket.socket(kind, socket.SOCK_DGRAM))
        for number in sorted(missing):
            index = number % DESTINATIONS
            address = behind(targets[index % len(targets)], family, index)
            sender.sendto(_NUMBER.pack(number) + bytes(1000), (address, PORT))
        end = time.monotonic() + WAIT_S * PATIENCE
        while missing and time.monotonic() < end:
            missing -= {number for receiver in receivers for number in _arrived(receiver)}
            time.sleep(0.01)
    return missing


def _arrived(receiver: socket.socket) -> list[int]:
    found: list[int] = []
    while True:
        try:
            found.append(*_NUMBER.unpack(receiver.recv(2000)[: _NUMBER.size]))
        except BlockingIOError:
            return found


def dropped(agent: AgentHost) -> str:
    """Say what the sockets of its namespace had no room for."""
    lines = agent.namespace.run("cat", "/proc/net/snmp").splitlines()
    names, values = (line.split() for line in lines if line.startswith("Udp:"))
    return f"{values[names.index('RcvbufErrors')]} datagrams dropped"


@pytest.mark.parametrize("delay_ms", [0, 20])
async def test_fifty_destinations_at_once_lose_nothing(tmp_path: Path, delay_ms: float) -> None:
    async with fleet(tmp_path, delay_ms, count=5) as bed:
        one, *others = bed.agents
        for other in others:
            populate(other)
        for family in (0, 1):
            for targets in (others[:1], others):
                for other in others:
                    forget(one, other)
                missing = await asyncio.to_thread(burst, one, targets, family)
                told = "; ".join(f"{a.status()['counters']}, {dropped(a)}" for a in (one, *targets))
                assert not missing, f"{family}, {len(targets)}: {sorted(missing)}; {told}"
        assert one.status()["counters"].get("held.dropped_destination_full", 0) == 0
