"""Operators at work while packets flow: what is no change for the data plane costs no packet."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from support.lab import Lab, wait_until

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
