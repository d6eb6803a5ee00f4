"""Revocation end to end, with a server dead and an agent away."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from support.lab import Lab, execute, program, running_lab, wait_until
from support.voice import Voice
from wgmap.clock import now
from wgmap_chaos.lab import removal
from wgmap_chaos.lab.inventory import AgentEntry, ServerEntry

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(240)]
CUT_S = 1.0


@pytest.fixture
def own_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab of its own: a revoked peer stays revoked."""
    with running_lab(tmp_path_factory.mktemp("revocation")) as lab:
        yield lab


def peers(lab: Lab, netns: str, interface: str) -> str:
    return lab.run(netns, "wg", "show", interface, "peers")


def data_key(lab: Lab, agent: AgentEntry) -> str:
    return lab.run(agent.netns, "wg", "show", agent.data_interface, "public-key").strip()


def kill_server(lab: Lab, server: ServerEntry) -> None:
    """Kill the supervisor first, so that nothing is started again."""
    pids = [server.pids[role] for role in ("supervisor", "replica", "responder")]
    for pid in pids:
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(pid and removal.alive(pid) for pid in pids), "the server is dead")
    wait_until(lambda: lab.status()["leader"] not in (None, server.name), "another one leads")


def revoke(lab: Lab, name: str) -> tuple[subprocess.Popen[str], float]:
    """Start ``wgmap peer revoke``; returns it with the time of its start."""
    socket = str(lab.file.servers[0].admin_socket)
    argv = [program("wgmap"), "--socket", socket, "peer", "revoke", name, "--json"]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True), now()


def is_revoked(lab: Lab, name: str) -> bool:
    shown = json.loads(lab.wgmap("peer", "show", name, "--json"))
    return bool(shown["revoked"])


def test_a_revoked_peer_is_cut_off_with_a_server_dead_and_an_agent_away(own_lab: Lab) -> None:
    lab = own_lab
    holders, gone = lab.file.agents[:2], lab.file.agent("a3")
    away = lab.file.agent("a4")
    for agent in (*holders, away):
        assert lab.ping(agent, gone) is not None
    key = data_key(lab, gone)
    pid = away.pids["agent"]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    kill_server(lab, lab.file.servers[2])

    running, began = revoke(lab, "a3")
    cut: dict[str, float] = {}

    def all_cut() -> bool:
        for agent in holders:
            if agent.name not in cut and key not in peers(lab, agent.netns, agent.data_interface):
                cut[agent.name] = now() - began
        return len(cut) == len(holders)

    wait_until(all_cut, "the holders have cut their tunnels", 10)
    out, _ = running.communicate(timeout=20)
    told = json.loads(out)
    # Measured from the program's start, which takes a good part of it on a busy machine.
    assert max(cut.values()) < CUT_S + 2.0
    assert running.returncode == 3
    assert (told["confirmed"], told["unconfirmed"]) == (["ms1", "ms2"], ["ms3"])
    assert 2.0 <= told["took_s"] < 4.0  # 2 S, and a busy machine

    assert_shut_out(lab, gone, holders)

    # The one that was away never asks for it, and learns it all the same.
    assert key in peers(lab, away.netns, away.data_interface)
    lab.chaos("start-agents", "a4")
    wait_until(
        lambda: key not in peers(lab, away.netns, away.data_interface), "it has learnt it", 20
    )

    # With the dead server back, the same once more is confirmed by all.
    lab.chaos("start-servers", "ms3")
    wait_until(
        lambda: all(server["fresh"] for server in lab.status()["servers"]), "all are fresh", 30
    )
    socket = str(lab.file.servers[0].admin_socket)
    again = execute(program("wgmap"), "--socket", socket, "peer", "revoke", "a3")
    assert again.returncode == 0, again.stderr
    assert "ms1, ms2, ms3" in again.stdout
    assert is_revoked(lab, "a3")


def assert_shut_out(lab: Lab, gone: AgentEntry, holders: tuple[AgentEntry, ...]) -> None:
    """Check that no tunnel leads there, and that no server that lives hears or names it."""
    for agent in holders:
        assert lab.ping(agent, gone, wait_s=1.0) is None
    for server in lab.file.servers[:2]:
        control = lab.run(gone.netns, "wg", "show", gone.control_interface, "public-key").strip()
        wait_until(
            lambda: control not in peers(lab, server.netns, server.control_interface),  # noqa: B023
            f"{server.name} has removed the control tunnel",
        )
        with Voice(gone) as voice:
            assert voice.ask(server, holders[0].eids[0]) is None
        with Voice(holders[0]) as voice:
            reply = voice.ask(server, gone.eids[0], wait_s=3)
            assert reply is not None
            assert not any(record.locators for record in reply.records)
