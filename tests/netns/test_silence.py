"""A peer that says nothing: first a probe inside the tunnel, then a question to the servers.

Whatever would tell the agent by itself is dropped on its way in: all pushes, and all that the peer
sends. So what cures the flow is the agent's own refresh, sent after a probe without an answer.
"""

import asyncio
import functools
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import pytest

from support.lab import Lab, wait_until
from support.reconfigure import restart
from wgmap.addresses import Endpoint, IPAddress
from wgmap_chaos.contacts.faults import DATA_PORT
from wgmap_chaos.flow import OneWayFlow
from wgmap_chaos.lab import removal
from wgmap_chaos.lab.errors import LabError
from wgmap_chaos.lab.inventory import AgentEntry
from wgmap_chaos.losses import Loss, losing
from wgmap_chaos.moves.mover import Mover

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(180)]

DELAYS_MS = (0, 20)
NEVER = 1 << 20  # packets: more than a test sends
MAP_NOTIFY = "meta l4proto udp udp dport 4342 @th,64,4 4"
OTHER_QUESTIONS = ("mapping.revalidated", "mapping.second_server")
# Readings every 2 s, a silence of 3 s, a second for the probe's answer; and a busy machine.
NOTICED_S = 20.0


def counters(lab: Lab, agent: AgentEntry) -> dict[str, int]:
    found: dict[str, int] = lab.agent_status(agent)["counters"]
    return found


@contextmanager
def deaf(agent: AgentEntry) -> Iterator[None]:
    """Let an agent hear no push and nothing of its data tunnels, but answers to questions."""
    pushes = Loss(agent.netns, agent.control_interface, MAP_NOTIFY, NEVER)
    data = Loss(agent.netns, agent.underlay_port, f"udp dport {DATA_PORT}", NEVER)
    with losing(pushes, data):
        yield


def one_way(source: AgentEntry, target: AgentEntry) -> OneWayFlow:
    return OneWayFlow(source.netns, target.netns, target.eids[0], linger_s=0.1)


async def arrives_again(flow: OneWayFlow) -> None:
    """Wait until packets that are sent from now on come through."""
    record, first = flow.record, len(flow.record.sent)
    async with asyncio.timeout(NOTICED_S):
        while max(record.echoed, default=-1) < first:  # noqa: ASYNC110  # counted by a callback
            await asyncio.sleep(0.02)


def contacted(lab: Lab, source: AgentEntry, target: AgentEntry) -> bool:
    """Make a contact; tell whether a second server was asked after it.

    None is where two servers have pushed a change of the target meanwhile.
    """
    second = "mapping.second_server"
    lab.forget(source, target)
    before = counters(lab, source).get(second, 0)
    assert lab.ping(source, target) is not None
    with suppress(LabError):
        wait_until(lambda: counters(lab, source).get(second, 0) > before, "it is asked", 5)
        return True
    return False


@pytest.fixture
def pair(lab: Lab) -> tuple[AgentEntry, AgentEntry]:
    """Two agents with a tunnel that stands, after the last question of their first contact."""
    source, target = lab.file.agents[2:4]
    wait_until(lambda: contacted(lab, source, target), "a contact whose second server is asked", 60)
    return source, target


@pytest.mark.parametrize("delay_ms", DELAYS_MS)
async def test_a_one_way_flow_is_probed_and_nobody_is_asked(
    lab: Lab, pair: tuple[AgentEntry, AgentEntry], delay_ms: int
) -> None:
    source, target = pair
    with lab.underlay(delay_ms=delay_ms):
        before = counters(lab, source)
        async with one_way(source, target) as flow:
            known = before.get("peer.probed", 0)
            await asyncio.to_thread(
                wait_until,
                lambda: counters(lab, source).get("peer.probed", 0) >= known + 2,
                "it is probed twice",
                NOTICED_S,
            )
        after = counters(lab, source)
    seconds = len(flow.record.sent) / 100
    grown = {name: after.get(name, 0) - before.get(name, 0) for name in (*before, *after)}
    assert grown["peer.probed"] <= 1 + seconds  # no storm
    assert not grown.get("peer.looked_for")
    assert not grown.get("peer.kicked")
    assert len(flow.record.echoed) >= len(flow.record.sent) - 5


def sends_to(lab: Lab, source: AgentEntry, places: Sequence[IPAddress]) -> bool:
    """Say whether an agent's peers, of which the test makes one, have one of these addresses."""
    peers = lab.agent_status(source)["peers"]
    return any(Endpoint.parse(peer["endpoint"]).address in places for peer in peers)


async def moved_unheard(lab: Lab, source: AgentEntry, target: AgentEntry) -> dict[str, int]:
    """Move the target away from a deaf source until it is found, and home again.

    The flow must arrive again only when the source hears: the target, which looks for the source
    too and has no answer, may give the session up meanwhile, and a handshake needs both ways.
    Returns by how much the source's counters grew until it knew where the target is.
    """
    mover = Mover(target)
    try:
        async with one_way(source, target) as flow:
            with deaf(source):
                before = counters(lab, source)
                await mover.move()
                found = functools.partial(sends_to, lab, source, mover.addresses)
                await asyncio.to_thread(wait_until, found, "it is found", NOTICED_S)
                after = counters(lab, source)
            await arrives_again(flow)
        return {name: count - before.get(name, 0) for name, count in after.items()}
    finally:
        await mover.home()
        wait_until(lambda: lab.ping(source, target, wait_s=1), "the tunnel stands again")


@pytest.mark.parametrize("delay_ms", DELAYS_MS)
async def test_a_new_endpoint_that_nobody_told_of_is_found(
    lab: Lab, pair: tuple[AgentEntry, AgentEntry], delay_ms: int
) -> None:
    with lab.underlay(delay_ms=delay_ms):
        grown = await moved_unheard(lab, *pair)
        for _ in range(2):
            # Where a server was away for a moment, the agent asks for what that one would push.
            if any(grown.get(name) for name in OTHER_QUESTIONS):
                grown = await moved_unheard(lab, *pair)
    for name in ("peer.probed", "peer.looked_for"):
        assert grown.get(name, 0) > 0, name


def lose_the_key(lab: Lab, agent: AgentEntry) -> None:
    """Let an agent begin with a new data key, and without the device that still has the old one."""
    for pid in (lab.file.agent(agent.name).pids["agent"], agent.wireguard[agent.data_interface]):
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: not removal.alive(pid), "it ends")  # type: ignore[misc]
    (agent.state_dir / "data.key").unlink()
    restart(lab, [agent.name])


@pytest.mark.parametrize("delay_ms", DELAYS_MS)
async def test_a_new_key_that_nobody_told_of_is_found(
    lab: Lab, pair: tuple[AgentEntry, AgentEntry], delay_ms: int
) -> None:
    """Its handshake must be heard, so only the pushes are dropped; any question may find it."""
    source, target = pair
    pushes = Loss(source.netns, source.control_interface, MAP_NOTIFY, NEVER)
    with lab.underlay(delay_ms=delay_ms):
        async with one_way(source, target) as flow:
            with losing(pushes):
                await asyncio.to_thread(lose_the_key, lab, target)
                await arrives_again(flow)
        keys = {peer["key"] for peer in lab.agent_status(source)["peers"]}
        assert lab.resolve(target.eids[0])["key"] in keys


@pytest.mark.parametrize("delay_ms", DELAYS_MS)
async def test_a_withdrawal_that_nobody_told_of_is_found(
    lab: Lab, pair: tuple[AgentEntry, AgentEntry], delay_ms: int
) -> None:
    source, target = pair
    first, second = target.eids
    gone = f"{first}/32"
    try:
        with lab.underlay(delay_ms=delay_ms):
            async with one_way(source, target):
                with deaf(source):
                    lab.wgmap("peer", "set", target.name, "--prefix", f"{second}/128")
                    await asyncio.to_thread(
                        wait_until, lambda: gone not in eids(lab, source), "it is gone", NOTICED_S
                    )
        assert str(first) not in lab.run(source.netns, "ip", "route", "show", "proto", "87")
    finally:
        lab.wgmap("peer", "set", target.name, "--prefix", gone, "--prefix", f"{second}/128")
        restart(lab, [target.name])
        wait_until(lambda: lab.resolve(first)["found"], "it is registered again")
        wait_until(lambda: lab.ping(source, target, wait_s=1), "the tunnel stands again")


def eids(lab: Lab, agent: AgentEntry) -> set[str]:
    return {eid for peer in lab.agent_status(agent)["peers"] for eid in peer["eids"]}
