"""Who talks to whom: every server tells the same of all, and a trace from a peer uses it."""

import json
import os
import signal
from typing import Any

import pytest

from support.lab import Lab, wait_until
from wgmap_chaos.lab.inventory import AgentEntry, ServerEntry

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
