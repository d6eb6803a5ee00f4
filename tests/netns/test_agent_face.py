"""What an agent shows of itself over a lab: status, resolve, trace, exit codes, metrics."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.lab import Lab, execute, program, wait_until
from support.probe import Probe
from support.reconfigure import reconfigured
from wgmap_agent.runner.catalogue import COUNTERS
from wgmap_agent.runner.measures import HEARD_S
from wgmap_chaos.lab.inventory import AgentEntry
from wgmap_chaos.losses import Loss, losing

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]

# Contract: keys and what their values may be; None stands for null.
STATUS = {"release": str, "registered": bool, "servers": list, "peers": list, "counters": dict}
SERVER: dict[str, Any] = {
    "name": str,
    "control": str,
    "rtt_ms": float | None,
    "last_heard_s": float | None,
    "preferred": bool,
}
PEER: dict[str, Any] = {
    "key": str,
    "eids": list,
    "endpoint": str | None,
    "last_handshake_s": float | None,
    "rx": int | None,
    "tx": int | None,
    "state": str,
}
RESOLVE: dict[str, Any] = {
    "instance": int,
    "eid": str,
    "found": bool,
    "fresh": bool,
    "version": int | None,
    "ttl_s": int | None,
    "key": str | None,
    "locators": list,
}
LOCATOR = {"address": str, "port": int, "priority": int, "weight": int}
DELAY_MS = 20.0


def is_of(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert set(found) == set(wanted)
    for name, kind in wanted.items():
        assert isinstance(found[name], kind), (name, found[name])


def ask(agent: AgentEntry, *arguments: str) -> tuple[int, str, str]:
    """Run ``wgmap-agent`` against an agent; returns exit code, output and complaints."""
    done = execute(program("wgmap-agent"), "--socket", str(agent.socket), *arguments)
    return done.returncode, done.stdout, done.stderr


def contact(lab: Lab, source: AgentEntry, target: AgentEntry) -> None:
    """Make a first contact, until the handshake is known to stand."""
    lab.forget(source, target)
    assert lab.ping(source, target) is not None
    wait_until(
        lambda: any(
            one["state"] == "up" and f"{target.eids[0]}/32" in one["eids"]
            for one in lab.agent_status(source)["peers"]
        ),
        "the tunnel stands",
    )


def test_status_and_resolve_are_as_promised(lab: Lab) -> None:
    source, target = lab.file.agents[:2]
    contact(lab, source, target)
    code, output, _ = ask(source, "status", "--json")
    status = json.loads(output)
    assert code == 0
    is_of(status, STATUS)
    for one in status["servers"]:
        is_of(one, SERVER)
    for one in status["peers"]:
        is_of(one, PEER)
        assert one["state"] in ("pending", "up", "silent", "idle")
    assert {one["name"] for one in status["servers"]} == {one.name for one in lab.file.servers}
    assert sum(one["preferred"] for one in status["servers"]) == 1
    assert all(isinstance(value, int) for value in status["counters"].values())
    for arguments in (("--json", "resolve", str(target.eids[0])),):
        code, output, _ = ask(source, *arguments)
        assert code == 0
        is_of(json.loads(output), RESOLVE)
        for one in json.loads(output)["locators"]:
            is_of(one, LOCATOR)
    code, output, _ = ask(source, "resolve", "10.66.200.200", "--json")
    assert code == 1
    is_of(json.loads(output), RESOLVE)
    assert not json.loads(output)["found"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("resolve", "10.66.200.200"), 1),
        (("resolve", "192.0.2.1"), 2),  # outside the overlay
        (("resolve", "nonsense"), 2),
        (("trace", "10.66.200.200"), 1),
        (("trace", "192.0.2.1"), 1),  # it says where a packet stops
        (("trace", "nonsense"), 2),
        (("forget", "10.66.200.200"), 1),
        (("forget", "nonsense"), 2),
        (("down",), 2),
        (("down", "--config", "/nonexistent/agent.toml"), 2),
        (("run", "--config", "/nonexistent/agent.toml"), 2),
        (("nonsense",), 2),
        (("--socket", "/nonexistent/agent.sock", "status"), 1),
        (("status", "--socket", "/nonexistent/agent.sock"), 1),
    ],
)
def test_exit_codes(lab: Lab, arguments: tuple[str, ...], expected: int) -> None:
    code, _, complaints = ask(lab.file.agents[0], *arguments)
    assert code == expected, complaints
    assert "Traceback" not in complaints


def applied(lab: Lab) -> int:
    """Return the last index that any server has applied."""
    return max(one["applied"] or 0 for one in lab.status()["servers"])


def test_a_trace_has_every_step_with_its_time(lab: Lab) -> None:
    source, target = lab.file.agents[:2]
    with lab.underlay(delay_ms=DELAY_MS):
        contact(lab, source, target)
        code, output, _ = ask(source, "trace", str(target.eids[0]), "--json")
        trace = json.loads(output)
        assert code == 0, trace
        text = ask(source, "trace", str(target.eids[0]))[1]
    round_trip = (
        0.95 * 2 * DELAY_MS / 1e3
    )  # the lab's wire is exact to some tenths of a millisecond
    assert {one["name"] for one in trace["servers"]} == {one.name for one in lab.file.servers}
    for one in trace["servers"]:
        assert round_trip <= one["answered_s"] < 1
        assert one["fresh"]
        assert one["pushed_s"] == 0
        assert round_trip <= one["acknowledged_s"] < 1
        index = one["index"]
        assert index > 0
        wait_until(lambda index=index: applied(lab) >= index, "servers say that it is applied")  # type: ignore[misc]
    steps = [one["step"] for one in trace["contact"]]
    assert steps[0] == "captured"
    assert {"asked", "answered", "peer", "injected", "route", "stands"} <= set(steps)
    times = [one["at"] for one in trace["contact"]]
    assert times == sorted(times)
    assert times[-1] - times[0] >= 2 * round_trip, "a question and a handshake"
    assert all(one["ok"] for one in trace["steps"])
    assert text.count("log index") == len(lab.file.servers)
    assert text.count("acknowledged after") == len(lab.file.servers)


def test_a_trace_tells_that_nobody_has_an_eid(lab: Lab) -> None:
    code, output, _ = ask(lab.file.agents[0], "trace", "10.66.200.200", "--json")
    assert code == 1
    for one in json.loads(output)["servers"]:
        assert one["index"] > 0
        assert (one["pushed_s"], one["acknowledged_s"]) == (None, None)


def scraped(path: Path) -> dict[str, dict[tuple[str, ...], float]]:
    """Read the page as Prometheus does: sample names to values by their labels' values."""
    samples: dict[str, dict[tuple[str, ...], float]] = {}
    for one in Probe(path).samples():
        samples.setdefault(one.name, {})[tuple(one.labels.values())] = one.value
    return samples


@pytest.fixture
def measured(lab: Lab, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "metrics.sock"
    with reconfigured(lab, lab.file.agents[:1], metrics={"listen": str(path)}):
        yield path


def test_metrics_show_a_contact_and_what_status_counts(lab: Lab, measured: Path) -> None:
    source, target = lab.file.agents[:2]
    histogram = "wgmap_agent_first_contact_seconds"
    before = scraped(measured)[f"{histogram}_count"][()]
    contact(lab, source, target)
    page = scraped(measured)
    assert page[f"{histogram}_count"][()] == before + 1
    assert 0 < page[f"{histogram}_sum"][()] < 5
    buckets = list(page[f"{histogram}_bucket"].values())
    assert buckets == sorted(buckets)
    assert buckets[-1] == before + 1
    names = {(one.name,) for one in lab.file.servers}
    assert page["wgmap_agent_registered"][()] == 1
    assert page["wgmap_agent_peers"]["up",] >= 1
    assert set(page["wgmap_agent_server_preferred"]) == names
    assert sum(page["wgmap_agent_server_preferred"].values()) == 1
    assert set(page["wgmap_agent_server_round_trip_seconds"]) <= names
    known = {one.name for one in COUNTERS}
    for name in known.intersection(lab.agent_status(source)["counters"]):
        shown = "wgmap_agent_" + name.removeprefix("now.").replace(".", "_").lower()
        shown += "" if name.startswith("now.") else "_total"
        assert shown in page, name


# ------------------------------------------------------------------------------ health

WELL = {"registered": True, "map_server": True}


@contextmanager
def deaf(agent: AgentEntry) -> Iterator[None]:
    """Have nothing of the map servers reach an agent; its tunnels to other agents go on."""
    nothing = Loss(agent.netns, agent.underlay_port, "udp sport 51822", 1 << 20)
    with losing(nothing) as losses:
        yield
        assert losses.lost() != [0], "something was kept away"


def lives(lab: Lab, measured: Path, source: AgentEntry, target: AgentEntry) -> None:
    """Check that the process is said to live, and that the tunnel that stands carries packets."""
    assert Probe(measured).get("/health/live")[0] == 200
    assert lab.ping(source, target) is not None


def test_health_is_ready_only_while_registered_and_hearing_a_server(
    lab: Lab, measured: Path
) -> None:
    source, target = lab.file.agents[:2]
    probe = Probe(measured)
    contact(lab, source, target)
    assert probe.ready() == WELL
    with deaf(source):
        pid = lab.file.agent(source.name).pids["agent"]  # it was started anew
        assert pid is not None
        os.kill(pid, signal.SIGHUP)
        bad = {"registered": False, "map_server": False}
        wait_until(lambda: probe.ready() == bad or None, "begun anew, it has heard nobody")
        assert probe.get("/health/ready")[0] == 503
        assert probe.value("wgmap_agent_registered") == 0
        lives(lab, measured, source, target)
    wait_until(lambda: probe.ready() == WELL or None, "it is registered again", 60)
    assert probe.get("/health/ready")[0] == 200


@pytest.mark.skipif(not os.environ.get("WGMAP_LONG"), reason="WGMAP_LONG=1: waits for HEARD_S")
def test_health_is_not_ready_once_no_server_was_heard_for_half_a_minute(
    lab: Lab, measured: Path
) -> None:
    source, target = lab.file.agents[:2]
    probe = Probe(measured)
    contact(lab, source, target)
    with deaf(source):
        wait_until(lambda: not probe.well() or None, "it says that no server is heard", 60)
        assert not probe.ready()["map_server"]
        silences = [one["last_heard_s"] for one in lab.agent_status(source)["servers"]]
        assert min(silences) >= HEARD_S
        assert min(silences) < HEARD_S + 5, "looked at each 50 ms"
        shown = probe.metrics()["wgmap_agent_server_silence_seconds"].samples
        assert min(one.value for one in shown) >= HEARD_S
        lives(lab, measured, source, target)
    wait_until(lambda: probe.ready() == WELL or None, "a server is heard again", 60)
