"""Who talks to whom: every server tells the same of all, and a trace from a peer uses it.

And how long it takes until the other side has heard.
"""

import json
import logging
import os
import signal
import time
from typing import Any

import pytest

from support.lab import Lab, wait_until
from wgmap.metrics.families import total
from wgmap_chaos.lab.inventory import AgentEntry, ServerEntry
from wgmap_chaos.lab.observation import admin_get
from wgmap_cluster.responder.service import NOTE_EVERY_S

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(180)]


def traced(lab: Lab, source: AgentEntry, target: AgentEntry, server: ServerEntry) -> Any:
    asked = ("trace", str(target.eids[0]), "--from", source.name, "--json")
    return json.loads(lab.wgmap(*asked, server=server, check=False))


def steps(trace: Any) -> dict[str, bool | None]:
    return {one["step"]: one["ok"] for one in trace["steps"]}


def heard(trace: Any) -> bool | None:
    return (steps(trace)["asked"], steps(trace)["told"]) == (True, True) or None


@pytest.mark.parametrize("delay_ms", [0.0, 20.0])
def test_every_server_tells_what_all_told(lab: Lab, delay_ms: float) -> None:
    source, target = lab.file.agents[:2]
    names = [server.name for server in lab.file.servers]
    with lab.underlay(delay_ms=delay_ms):
        lab.forget(source, target)
        assert lab.ping(source, target) is not None
        for server in lab.file.servers:
            wait_until(lambda s=server: heard(traced(lab, source, target, s)), "both have heard")  # type: ignore[misc]
            trace = traced(lab, source, target, server)
            assert trace["found"]
            assert (trace["contacts"]["servers"], trace["contacts"]["silent"]) == (names, [])
            told = {one["agent"]: one["told"] for one in trace["contacts"]["contacts"]}
            assert set(told) == {source.name, target.name}
            assert {one["server"] for one in told[source.name]} <= set(names)
            assert min(one["ago_s"] for one in told[source.name]) < 60


def timed(lab: Lab) -> tuple[int, float]:
    """Return how many introductions all servers timed, and their seconds together."""
    views = [admin_get(server.admin_socket, "/v1/counters") for server in lab.file.servers]
    counted = [each for view in views if view for each in view["responders"]]
    seconds = sum(each.get("introduction.sum_us", 0) for each in counted) / 1e6
    return sum(total("introduction", each) for each in counted), seconds


def more(lab: Lab, than: int) -> tuple[int, float] | None:
    """Return what timed() does if there is one more."""
    counted = timed(lab)
    return counted if counted[0] > than else None


def settled(lab: Lab) -> tuple[int, float]:
    """Return what timed() does once nothing is under way: responders tell it every second."""

    def same() -> tuple[int, float] | None:
        before = timed(lab)
        time.sleep(1.5 * NOTE_EVERY_S)
        return before if timed(lab) == before else None

    return wait_until(same, "nobody is introduced any more", 60.0)


@pytest.mark.parametrize("delay_ms", [0.0, 20.0])
def test_servers_time_until_the_other_side_has_heard(lab: Lab, delay_ms: float) -> None:
    """It is at least there and back: the push, and its acknowledgement."""
    source, target = lab.file.agents[1:3]
    with lab.underlay(delay_ms=delay_ms):
        count, seconds = settled(lab)
        lab.forget(source, target)
        assert lab.ping(source, target) is not None
        count_after, seconds_after = wait_until(lambda: more(lab, count), "it is timed")
    logging.getLogger(__name__).info("%d, %.4f s", count_after - count, seconds_after - seconds)
    mean_s = (seconds_after - seconds) / (count_after - count)
    assert 2 * delay_ms / 1000 < mean_s < 1, "a first contact is below a second"


def test_an_agent_that_stands_still_has_not_heard(lab: Lab) -> None:
    """It is pushed to until it goes on, and acknowledges then."""
    server = lab.file.servers[0]
    source, target = lab.file.agents[2], lab.file.agents[3]
    lab.forget(source, target)
    pid = lab.file.agent(target.name).pids["agent"]
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        lab.ping(source, target, wait_s=0.2)
        trace = traced(lab, source, target, server)
        assert steps(trace)["asked"] is True
        states = {one["state"] for one in told_to(trace, target)}
        assert states == {"waiting"}
        assert steps(trace)["told"] is None
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: heard(traced(lab, source, target, server)), "it has heard")


def told_to(trace: Any, agent: AgentEntry) -> list[Any]:
    pairs = trace["contacts"]["contacts"]
    return [each for one in pairs if one["agent"] == agent.name for each in one["told"]]
