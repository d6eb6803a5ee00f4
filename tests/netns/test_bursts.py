"""Many packets to one new destination, and a scan of ten thousand that do not exist."""

import asyncio
import socket
import struct
from contextlib import suppress
from pathlib import Path

import pytest

from support.lab import Lab, wait_until
from wgmap_agent.runner import statussocket
from wgmap_chaos.flow import Flow, socket_in
from wgmap_chaos.lab.errors import LabError
from wgmap_chaos.lab.inventory import AgentEntry

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(180)]

HELD = 100  # of one destination, before its tunnel stands
SCANNED = 10_000
PORT = 9000
GROWTH_KB = 16 * 1024  # what a scan may cost: bounded flows, a bounded negative cache
_NUMBER = struct.Struct("!I")
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33


def counters(agent: AgentEntry) -> dict[str, int]:
    found: dict[str, int] = statussocket.request(agent.socket, {"op": "status"})["counters"]
    return found


def changed(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """Return the counters that are others than before, by how much."""
    return {k: n - before.get(k, 0) for k, n in after.items() if n != before.get(k, 0)}


def burst(
    lab: Lab, source: AgentEntry, target: AgentEntry, count: int, family: int
) -> tuple[list[int], int]:
    """Send so many packets at once until what the agent held of them has arrived.

    Returns the numbers of those that arrived, in their order, and how many were held: on a busy
    machine the tunnel's route may be there before the last was sent.
    """
    kind = (socket.AF_INET, socket.AF_INET6)[family]
    destination = (str(target.eids[family]), PORT)

    def states() -> tuple[dict[str, int], dict[str, int]]:
        return counters(source), counters(target)

    before = states()
    with socket_in(target.netns, kind) as receiver, socket_in(source.netns, kind) as sender:
        receiver.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 4 << 20)
        sender.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 4 << 20)
        receiver.bind(destination)
        for number in range(count):
            sender.sendto(_NUMBER.pack(number) + bytes(1000), destination)
        arrived: list[int] = []

        def held_came() -> int | None:
            status = counters(source)
            held = status.get("held.packets", 0) - before[0].get("held.packets", 0)
            with suppress(BlockingIOError):
                while True:
                    arrived.append(*_NUMBER.unpack(receiver.recv(2000)[: _NUMBER.size]))
            return held if held and set(range(held)) <= set(arrived) else None

        try:
            held = wait_until(held_came, "what is held arrives")
        except LabError as error:
            changes = [changed(*pair) for pair in zip(before, states(), strict=True)]
            missing = sorted(set(range(count)) - set(arrived))
            pytest.fail(f"{error}; missing {missing}; source {changes[0]}; target {changes[1]}")
        return arrived, held


@pytest.mark.parametrize("delay_ms", [0, 20])
@pytest.mark.parametrize("family", [0, 1])
def test_a_hundred_packets_at_once_all_arrive_in_order(
    lab: Lab, delay_ms: int, family: int
) -> None:
    source, target = lab.file.agents[:2]
    with lab.underlay(delay_ms=delay_ms):
        lab.forget(source, target)
        arrived, held = burst(lab, source, target, HELD, family)
    assert arrived[:held] == list(range(held))


def test_more_are_dropped_and_counted(lab: Lab) -> None:
    source, target = lab.file.agents[:2]
    with lab.underlay(delay_ms=20):
        lab.forget(source, target)
        before = counters(source)
        arrived, held = burst(lab, source, target, 3 * HELD, 0)
        after = counters(source)
    assert held == HELD
    assert arrived[:HELD] == list(range(HELD))
    dropped = "held.dropped_destination_full"
    assert 0 < after[dropped] - before.get(dropped, 0) <= 2 * HELD


def memory_kb(pid: int | None) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def scan(source: AgentEntry) -> None:
    with socket_in(source.netns, socket.AF_INET) as sender:
        for number in range(SCANNED):
            address = f"10.66.{200 + number // 250}.{number % 250}"
            sender.sendto(b"scan", (address, PORT))


async def test_a_scan_disturbs_nobody(lab: Lab) -> None:
    """The scanner's established flow, the others' first contacts, memory, the servers."""
    scanner, other, third, fourth = lab.file.agents
    lab.forget(third, fourth)
    assert lab.ping(scanner, other) is not None
    pids = [scanner.pids["agent"], *(server.pids["responder"] for server in lab.file.servers)]
    before, known = [memory_kb(pid) for pid in pids], counters(scanner)
    async with Flow(scanner.netns, other.netns, other.eids[0]) as flow:
        scanning = asyncio.create_task(asyncio.to_thread(scan, scanner))
        contact = await asyncio.to_thread(lab.ping, third, fourth)
        await scanning
        await asyncio.to_thread(
            wait_until, lambda: counters(scanner)["now.flows"] == 0, "the flows are over"
        )
    assert flow.record.lost == 0
    assert contact is not None
    assert contact < 1000
    for pid, was in zip(pids, before, strict=True):
        assert memory_kb(pid) - was < GROWTH_KB
    scanned = counters(scanner)
    assert scanned["flow.opened"] - known.get("flow.opened", 0) <= SCANNED
    asked = scanned["request.asked"] - known.get("request.asked", 0)
    repeated = scanned.get("request.repeated", 0) - known.get("request.repeated", 0)
    assert repeated <= asked  # unanswered questions do not multiply
    assert await asyncio.to_thread(lab.ping, scanner, third) is not None
