"""Steady flows: what they count, how they bear a process that is late, and the program of them."""

import asyncio
import itertools
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from support.lab import wait_until
from support.netns import Namespace, netbed
from wgmap_chaos.flow import Flow
from wgmap_chaos.history import file
from wgmap_chaos.history.records import Flow as Recorded
from wgmap_chaos.lab.errors import LabError
from wgmap_chaos.load import flows
from wgmap_chaos.load.part import Part
from wgmap_chaos.losses import Loss, losing

pytestmark = pytest.mark.netns

RATE, LATE_S = 50.0, 1.0


@pytest.fixture
def ends() -> Iterator[tuple[Namespace, Namespace]]:
    with netbed("wg") as bed:
        left, right = bed.namespace("l"), bed.namespace("r")
        bed.veth(left, right, ["192.0.2.1/24"], ["192.0.2.2/24", "2001:db8:6::2/64"])
        yield left, right


async def test_whoever_was_late_makes_up_for_nothing_at_once(
    ends: tuple[Namespace, Namespace],
) -> None:
    left, right = ends
    async with Flow(left.name, right.name, ip_address("192.0.2.2"), rate=RATE) as flow:
        await came_back(flow, 10)
        stalled = time.monotonic()
        time.sleep(LATE_S)  # noqa: ASYNC251  # this is the fault: the whole process stands still
        await came_back(flow, len(flow.record.sent) + 10)
    after = [at for at in flow.record.sent if at >= stalled]
    soon = [at for at in after if at < stalled + LATE_S + 3 / RATE]
    assert len(soon) <= 5, "not the fifty that were due"
    assert flow.record.lost == 0
    assert flow.record.longest_gap_s >= LATE_S - 0.1
    assert all(a <= b for a, b in itertools.pairwise(flow.record.sent))


async def came_back(flow: Flow, count: int) -> None:
    async with asyncio.timeout(20):
        while len(flow.record.returned) < count:  # noqa: ASYNC110  # counted by a callback
            await asyncio.sleep(0.01)


async def test_the_program_tells_what_was_lost(
    ends: tuple[Namespace, Namespace], tmp_path: Path
) -> None:
    left, right = ends
    pair = flows.Pair("a1", "a2", 0)
    course = flows.Course(pair, (left.name, right.name), "192.0.2.2", flows.FLOW_PORT)
    out = tmp_path / "flows.jsonl"
    part, count = await Part.start(flows.__name__, [str(out), RATE, [course]])
    assert count == 1
    with losing(Loss(right.name, port(right), f"udp dport {flows.FLOW_PORT}", 10)) as losses:
        await asyncio.to_thread(wait_until, losses.complete, "ten are lost")
    await part.end()
    (told,) = file.records(out)
    assert isinstance(told, Recorded)
    assert (told.name, told.interval_s) == ("a1>a2 IPv4", 1 / RATE)
    assert len(told.lost) == 10 < told.sent
    assert told.ended > told.begun


def port(namespace: Namespace) -> str:
    return namespace.ip("-o", "link", "show", "type", "veth").split()[1].partition("@")[0]


async def test_a_program_that_does_not_start_is_an_error(tmp_path: Path) -> None:
    out = tmp_path / "flows.jsonl"
    course = flows.Course(flows.Pair("a1", "a2", 0), ("", ""), "no address", 1)
    with pytest.raises(LabError, match="does not start"):
        await Part.start(flows.__name__, [str(out), RATE, [course]])
