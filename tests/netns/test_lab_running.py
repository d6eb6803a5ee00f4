"""A whole lab: what lab.json promises, and starting again what has died."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from support.lab import Lab, chaos, execute, leftovers, program, running_lab, wait_until
from wgmap_chaos.lab import removal, topology

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(240)]


def pids_of(lab: Lab) -> list[tuple[str, int]]:
    """(namespace, pid) of every process in lab.json; fails where one is null."""
    found = []
    for host in lab.file.hosts:
        for name, pid in (host.pids | host.wireguard).items():
            assert pid is not None, f"{host.name}: {name} does not run"
            found.append((host.netns, pid))
    return found


def kill(*pids: int | None) -> None:
    """Kill processes and wait until they are gone."""
    for pid in pids:
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(pid and removal.alive(pid) for pid in pids), "they are gone")


def addresses_on(lab: Lab, netns: str, interface: str) -> set[str]:
    text = lab.run(netns, "ip", "-j", "address", "show", "dev", interface)
    return {entry["local"] for link in json.loads(text) for entry in link["addr_info"]}


def test_every_process_of_lab_json_lives_in_its_namespace(lab: Lab) -> None:
    for netns, pid in pids_of(lab):
        assert removal.alive(pid)
        inside = removal.namespace_id(Path(f"/proc/{pid}/ns/net"))
        assert inside == removal.netns_id(netns)


def test_addresses_are_where_lab_json_says(lab: Lab) -> None:
    for server in lab.file.servers:
        assert str(server.underlay) in addresses_on(lab, server.netns, server.underlay_port)
        assert str(server.control) in addresses_on(lab, server.netns, server.control_interface)
        assert str(server.mesh) in addresses_on(lab, server.netns, server.mesh_interface)
    for agent in lab.file.agents:
        underlay = addresses_on(lab, agent.netns, agent.underlay_port)
        assert {str(address) for address in agent.underlay} <= underlay
        assert str(agent.control) in addresses_on(lab, agent.netns, agent.control_interface)
        assert {str(eid) for eid in agent.eids} <= addresses_on(lab, agent.netns, agent.tun)


def test_every_agent_is_registered_and_every_server_knows_it(lab: Lab) -> None:
    assert lab.status()["leader"] in {server.name for server in lab.file.servers}
    for agent in lab.file.agents:
        assert lab.agent_status(agent)["registered"] is True
        for server in lab.file.servers:
            answer = lab.resolve(agent.eids[1], server)
            assert (answer["found"], answer["fresh"]) == (True, True)
            assert str(agent.underlay[0]) in {one["address"] for one in answer["locators"]}


def test_the_bridge_is_where_lab_json_says(lab: Lab) -> None:
    bridge = lab.file.underlay_bridge
    text = lab.run(bridge.netns, "ip", "-j", "link", "show", "master", bridge.name)
    assert len(json.loads(text)) == len(lab.file.servers) + len(lab.file.agents)


def test_the_underlay_changes_while_the_lab_runs(lab: Lab) -> None:
    source, target = lab.file.agents[0], lab.file.servers[0]
    ping = ["ping", "-q", "-n", "-c", "10", "-i", "0.02", str(target.underlay)]
    with lab.underlay(delay_ms=20):
        best = float(lab.run(source.netns, *ping).split("mdev = ")[1].split("/")[0])
        assert 39.9 < best < 43
        # Only one of the two is changed; the other stays.
        kept = json.loads(lab.chaos("set", "--loss", "1", "--json"))
        others = {"jitter_ms": 0.0, "duplicate_percent": 0.0}
        assert kept == {"delay_ms": 20.0, "loss_percent": 1.0} | others
    best = float(lab.run(source.netns, *ping).split("mdev = ")[1].split("/")[0])
    assert best < 2
    assert lab.status()["leader"]


def test_up_refuses_a_lab_that_runs(lab: Lab) -> None:
    before = pids_of(lab)
    done = chaos(lab.directory, "up")
    assert done.returncode == 1
    assert "there is a lab in" in done.stderr
    assert pids_of(lab) == before


@pytest.mark.parametrize("command", ["start-servers", "start-agents"])
def test_starting_what_runs_changes_nothing(lab: Lab, command: str) -> None:
    before = lab.file
    lab.chaos(command)
    assert lab.file == before


def test_unknown_names_are_refused(lab: Lab) -> None:
    done = chaos(lab.directory, "start-servers", "ms1", "ms9")
    assert done.returncode == 1
    assert "no 'ms9' in this lab" in done.stderr


def test_a_dead_server_is_started_again_with_its_interfaces(lab: Lab) -> None:
    before = lab.file.servers[1]
    kill(*before.pids.values())
    lab.chaos("start-servers", before.name)
    after = lab.file.server(before.name)
    assert after.wireguard == before.wireguard
    assert None not in after.pids.values()
    assert not set(after.pids.values()) & set(before.pids.values())
    states = {one["name"]: one["state"] for one in lab.status(after)["servers"]}
    assert states[before.name] in ("leader", "follower")


def test_a_dead_agent_is_started_again_with_its_interfaces(lab: Lab) -> None:
    before = lab.file.agents[3]
    kill(before.pids["agent"])
    lab.chaos("start-agents", before.name)
    after = lab.file.agent(before.name)
    assert after.wireguard == before.wireguard
    assert after.pids["agent"] not in (None, before.pids["agent"])
    wait_until(lambda: lab.agent_status(after)["registered"], "it is registered again")


def test_two_labs_do_not_meet(lab: Lab, tmp_path: Path) -> None:
    before = pids_of(lab)
    options = ("--servers", "1", "--agents", "2", "--delay", "10", "--loss", "1")
    with running_lab(tmp_path / "second", *options) as second:
        assert lab.status()["peers"] == 4
        assert second.status()["peers"] == 2
        source, target = second.file.agents
        assert second.ping(source, target) is not None
        assert not {pid for _, pid in pids_of(second)} & {pid for _, pid in before}
    assert pids_of(lab) == before
    assert lab.status()["leader"]


def test_down_takes_away_an_up_that_was_killed_late(tmp_path: Path) -> None:
    directory = tmp_path / "lab"
    paths = topology.paths(directory)
    argv = [program("wgmap-chaos"), "lab", "up", "--dir", str(directory)]
    try:
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as up:
            wait_until(lambda: paths.config("a1").exists() or up.poll() is not None, "it enrols")
            up.kill()
    finally:
        assert execute(program("wgmap-chaos"), "lab", "down", "--dir", str(directory)).stderr == ""
    assert leftovers(directory) == []
