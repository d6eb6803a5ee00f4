"""Revocation end to end: a server dead, a server cut off, an agent away."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.lab import Lab, execute, program, running_lab, wait_until
from support.netns import WIREGUARD_SOCKETS
from support.voice import Voice
from wgmap.clock import now
from wgmap.wg import uapi
from wgmap.wg.keys import PublicKey
from wgmap_chaos.lab import removal
from wgmap_chaos.lab.inventory import AgentEntry, ServerEntry

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(240)]
CUT_S = 1.0  # from when a server was asked until the tunnels are cut


@pytest.fixture(scope="module")
def own_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab of its own, of which each test revokes one peer: that stays revoked."""
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


def holds(agent: AgentEntry, key: PublicKey) -> bool:
    """Read an agent's data device, without a program in between that takes time to start."""
    path = WIREGUARD_SOCKETS / f"{agent.data_interface}.sock"
    with socket.socket(socket.AF_UNIX) as device:
        device.connect(str(path))
        device.sendall(b"get=1\n\n")
        answer = b""
        while not answer.endswith(b"\n\n"):
            answer += device.recv(65536)
    return key in uapi.parse_state(agent.data_interface, answer).peers


def program_s(lab: Lab, name: str) -> float:
    """Measure what the program itself takes at present, most of it its start."""
    began = now()
    lab.wgmap("peer", "show", name)
    return now() - began


def revoke(lab: Lab, name: str) -> tuple[subprocess.Popen[str], float]:
    """Start ``wgmap peer revoke``; returns it with the time of its start."""
    admin = str(lab.file.servers[0].admin_socket)
    argv = [program("wgmap"), "--socket", admin, "peer", "revoke", name, "--json"]
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

    program_takes = max(program_s(lab, "a3") for _ in range(3))
    running, began = revoke(lab, "a3")
    cut: dict[str, float] = {}

    def all_cut() -> bool:
        for agent in holders:
            if agent.name not in cut and not holds(agent, PublicKey.parse(key)):
                cut[agent.name] = now() - began
        return len(cut) == len(holders)

    wait_until(all_cut, "the holders have cut their tunnels", 10)
    out, _ = running.communicate(timeout=20)
    told = json.loads(out)
    assert max(cut.values()) < CUT_S + program_takes
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
    assert_confirmed_by_all(lab, "a3")
    assert is_revoked(lab, "a3")


def assert_confirmed_by_all(lab: Lab, name: str) -> None:
    """Check that to revoke it once more is confirmed by every server."""
    admin = str(lab.file.servers[0].admin_socket)
    again = execute(program("wgmap"), "--socket", admin, "peer", "revoke", name)
    assert again.returncode == 0, again.stderr
    assert "ms1, ms2, ms3" in again.stdout


@contextmanager
def cut_off(lab: Lab, server: ServerEntry) -> Iterator[None]:
    """Let a server reach no other one, but all agents."""
    table = "rvk"
    rules = f"add table inet {table}; "
    rules += f"add chain inet {table} x {{ type filter hook input priority 0; }}; "
    rules += f'add rule inet {table} x iifname "{server.mesh_interface}" drop'
    lab.run(server.netns, "nft", rules)
    try:
        yield
    finally:
        lab.run(server.netns, "nft", f"delete table inet {table}")


def test_a_server_that_is_cut_off_is_named_and_says_nothing_with_authority(own_lab: Lab) -> None:
    """It goes on answering agents, with A=0, until it hears; then it shuts the peer out too."""
    lab = own_lab
    asker, holder, gone = lab.file.agent("a1"), lab.file.agent("a2"), lab.file.agent("a4")
    cut = next(one for one in lab.file.servers if one.name != lab.status()["leader"])
    via = next(one for one in lab.file.servers if one != cut)
    assert lab.ping(holder, gone) is not None
    key = PublicKey.parse(data_key(lab, gone))
    control = lab.run(gone.netns, "wg", "show", gone.control_interface, "public-key").strip()
    with cut_off(lab, cut):
        wait_until(lambda: lab.status(via)["leader"] not in (None, cut.name), "another one leads")
        admin = str(via.admin_socket)
        revoked = execute(program("wgmap"), "--socket", admin, "--json", "peer", "revoke", "a4")
        assert revoked.returncode == 3, revoked.stderr
        told = json.loads(revoked.stdout)
        assert told["unconfirmed"] == [cut.name]
        assert cut.name in revoked.stderr
        wait_until(lambda: not holds(holder, key), "the holder has cut its tunnel")
        with Voice(asker) as voice:
            reply = voice.ask(cut, gone.eids[0], wait_s=3)
        assert reply is not None, "it answers, but ..."
        assert any(record.locators for record in reply.records), "it has not heard of it"
        assert not any(record.authoritative for record in reply.records)
        # No agent takes that: neither the one that had the key, nor one that only heard of it.
        for agent in (asker, holder):
            assert lab.ping(agent, gone, wait_s=1.0) is None
            assert not holds(agent, key)
    wait_until(lambda: all(one["fresh"] for one in lab.status(via)["servers"]), "all are fresh")
    assert_confirmed_by_all(lab, "a4")
    wait_until(
        lambda: control not in peers(lab, cut.netns, cut.control_interface),
        "the server that was cut off has removed the control tunnel",
    )


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
