"""Operators at work while packets flow: what is no change for the data plane costs no packet."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.lab import Lab, running_lab, wait_until
from wgmap.wg import keyfile
from wgmap_chaos.lab import removal
from wgmap_chaos.lab.inventory import ServerEntry

pytestmark = [pytest.mark.netns, pytest.mark.slow]

PACKETS = 200


@pytest.mark.timeout(180)
def test_renaming_a_peer_costs_no_packet(lab: Lab) -> None:
    """Pings run from a1 to a2 while a2 is renamed and named back, at different servers."""
    source, target = lab.file.agents[:2]
    assert lab.ping(source, target) is not None
    first, second, _ = lab.file.servers
    ping = subprocess.Popen(
        (
            *("ip", "netns", "exec", source.netns),
            *("ping", "-n", "-i", "0.02", "-c", str(PACKETS), str(target.eids[0])),
        ),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        lab.wgmap("peer", "set", target.name, "--name", "renamed", server=first)
        shown = json.loads(lab.wgmap("peer", "show", "renamed", "--json", server=second))
        assert shown["registered"]
    finally:
        lab.wgmap("peer", "set", "renamed", "--name", target.name, server=second)
        out, _ = ping.communicate(timeout=60)
    assert re.search(rf"{PACKETS} packets transmitted, {PACKETS} received", out), out
    lab.forget(source, target)
    assert lab.ping(source, target) is not None


def test_a_backup_is_taken_at_any_server(lab: Lab, tmp_path: Path) -> None:
    for server in lab.file.servers:
        file = tmp_path / server.name
        value = json.loads(lab.wgmap("backup", str(file), "--json", server=server))
        assert (value["server"], value["peers"]) == (server.name, len(lab.file.agents))
        assert value["mappings"] == sum(len(agent.eids) for agent in lab.file.agents)


def test_events_tell_who_leads_and_the_audit_who_was_enrolled(lab: Lab) -> None:
    def leader() -> bool | None:
        lines = lab.wgmap("events", "--json").splitlines()
        return any(json.loads(line)["event"] == "leader" for line in lines) or None

    wait_until(leader, "an event about the leader")
    rows = json.loads(lab.wgmap("audit", "--json"))
    enrolled = {row["subject"] for row in rows if row["action"] == "enrol"}
    assert {agent.name for agent in lab.file.agents} <= enrolled


@pytest.mark.timeout(180)
def test_the_audit_trail_names_the_server_and_outlives_the_leader(lab: Lab) -> None:
    """Each change goes to another server, the last to the leader, which dies as it has answered."""
    leader = next(one for one in lab.file.servers if one.name == lab.status()["leader"])
    others = [one for one in lab.file.servers if one != leader]
    peer, name = lab.file.agents[3].name, lab.file.agents[3].name
    last = trail(lab, leader)[-1]["number"]
    for server in (*others, leader):
        renamed = f"{peer}-{server.name}"
        lab.wgmap("peer", "set", name, "--name", renamed, server=server)
        name = renamed
    for pid in leader.pids.values():
        assert pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    try:
        told = [trail(lab, server, last) for server in others]
        assert [row["server"] for row in told[0]] == [one.name for one in (*others, leader)]
        assert name in str(told[0][-1])
        assert comparable(told[0]) == comparable(told[1])
    finally:
        lab.chaos("start-servers")
        wait_until(lambda: lab.status(leader)["leader"] or None, "it is one of them again")
        lab.wgmap("peer", "set", name, "--name", peer, server=others[0])
    again = wait_until(lambda: trail(lab, leader, last)[:3] or None, "it knows what it did")
    assert comparable(again) == comparable(told[0])


def trail(lab: Lab, server: ServerEntry, since: int | None = None) -> list[dict[str, Any]]:
    """Return the audit trail as a server tells it, once it answers."""
    limits = [] if since is None else ["--since", str(since)]
    said = wait_until(
        lambda: lab.wgmap("audit", "--json", *limits, server=server, check=False) or None, "audit"
    )
    rows: list[dict[str, Any]] = json.loads(said)
    return rows


def comparable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what each server says by its own wall clock."""
    return [{key: value for key, value in row.items() if key != "time"} for row in rows]


@pytest.mark.timeout(300)
def test_the_drill_of_a_restore(tmp_path: Path) -> None:
    """All servers lose their state; keys and all else come back, and no tunnel feels it."""
    with running_lab(tmp_path / "lab", "--agents", "2") as lab:
        source, target = lab.file.agents
        assert lab.ping(source, target) is not None
        before = lab.status()["cluster_id"]
        keys = _backups(lab, tmp_path)
        ping = subprocess.Popen(
            ("ip", "netns", "exec", source.netns, "ping", "-n", "-i", "0.1", str(target.eids[0])),
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            _lose_everything(lab, keys)
            lab.chaos("start-servers")
            assert lab.status()["peers"] == 0
            # The agents whose tunnels the empty cluster found on its interfaces do not count.
            assert reachable(lab) == [0, 0, 0]
            view = json.loads(lab.wgmap("restore", str(tmp_path / "ms2"), "--json"))
            assert (view["backup_of"], view["servers_rekeyed"]) == (before, [])
            _wait_back(lab)
        finally:
            ping.send_signal(signal.SIGINT)
            out, _ = ping.communicate(timeout=20)
        assert " 0% packet loss" in out, out
        assert lab.status()["cluster_id"] != before
        lab.forget(source, target)
        assert lab.ping(source, target) is not None, "the first packet once the status says so"


def _backups(lab: Lab, directory: Path) -> Path:
    """Back up at each server with its keys, and take these out again; returns where they are."""
    operator = keyfile.load_or_create(directory / "operator.key")
    for server in lab.file.servers:
        file = directory / server.name
        lab.wgmap("backup", str(file), "--seal-to", str(operator.public), server=server)
        unseal = ("--unseal-with", str(directory / "operator.key"))
        lab.wgmap("restore", str(file), *unseal, "--keys-to", str(directory / "keys"))
    return directory / "keys"


def _lose_everything(lab: Lab, keys: Path) -> None:
    servers = lab.file.servers
    for server in servers:
        for pid in filter(None, server.pids.values()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    pids = [pid for server in servers for pid in server.pids.values() if pid]
    wait_until(lambda: not any(map(removal.alive, pids)) or None, "the servers are dead")
    for server in servers:
        for path in server.state_dir.iterdir():
            path.unlink()
        for path in (keys / server.name).iterdir():
            shutil.copy(path, server.state_dir)


def _wait_back(lab: Lab) -> None:
    """Wait for what an operator waits for: every server counts every agent again."""
    wait_until(lambda: reachable(lab) == [2, 2, 2] or None, "the agents are back", 60.0)


def reachable(lab: Lab) -> list[int | None]:
    """Return how many agents each server says that it can reach."""
    return [server["reachable_agents"] for server in lab.status()["servers"]]
