"""A real supervisor with real children: the responder itself, and a stand-in for the replica."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.netns import alive
from support.supervised import DEADLINE_S, ROLES, Server, wait_for
from support.tables import request
from wgmap.lisp.codec import decode
from wgmap.lisp.messages import MapReply


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.close()


def test_it_says_ready_when_it_answers_with_authority(server: Server) -> None:
    server.ready()
    pids = server.pids()
    assert pids["supervisor"] == server.process.pid
    assert all(alive(pids[role]) for role in ROLES)
    assert server.answers()
    assert "UNPROTECTED" in server.output()
    commands = {role: Path(f"/proc/{pids[role]}/cmdline").read_bytes() for role in ROLES}
    assert b"wgmap_cluster.responder\0--config" in commands["responder"]


@pytest.mark.parametrize("role", ["replica", "responder"])
def test_a_child_that_is_killed_is_started_again_and_the_port_stays(
    server: Server, role: str
) -> None:
    server.ready()
    before = server.pids()
    os.kill(before[role], signal.SIGKILL)
    wait_for(lambda: server.pids()[role] not in (None, before[role]), f"a new {role}")
    with pytest.raises(OSError, match="in use"), socket.socket(type=socket.SOCK_DGRAM) as other:
        other.bind(server.address)
    wait_for(server.answers, "answers")
    after = server.pids()
    assert {r for r in ROLES if before[r] == after[r]} == set(ROLES) - {role}


def test_requests_that_come_while_the_responder_restarts_are_answered(server: Server) -> None:
    server.ready()
    os.kill(server.pids()["responder"], signal.SIGSTOP)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as agent:
        agent.bind(("127.0.0.22", 4342))
        agent.settimeout(DEADLINE_S)
        agent.sendto(request("10.66.1.1/32", nonce=99), server.address)
        os.kill(server.pids()["responder"], signal.SIGKILL)
        reply = decode(agent.recv(4096))
        assert isinstance(reply, MapReply)
        assert reply.nonce == 99


def test_no_child_outlives_a_supervisor_that_is_killed(server: Server) -> None:
    server.ready()
    pids = server.pids()
    server.process.kill()
    server.wait()
    for role in ROLES:
        wait_for(lambda role=role: not alive(pids[role]), f"the {role} ends")  # type: ignore[misc]
    server.process = server.start()  # the port and the lock are free again
    server.ready()
    assert server.answers()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_of_it_cleanly(server: Server, number: signal.Signals) -> None:
    server.ready()
    pids = server.pids()
    server.process.send_signal(number)
    assert server.wait() == 0
    assert not any(alive(pids[role]) for role in ROLES)
    assert not (server.state / "pids.json").exists()
    server.told(b"STOPPING=1")


def test_a_child_that_does_not_listen_is_killed_in_the_end(server: Server) -> None:
    (server.state / "deaf").touch()
    server.ready()
    os.kill(server.pids()["replica"], signal.SIGKILL)
    before = server.pids()
    wait_for(lambda: server.pids()["replica"] not in (None, before["replica"]), "a deaf one")
    wait_for((server.state / "feed.sock").exists, "it runs")
    wait_for(server.answers, "answers")
    pids = server.pids()
    server.process.terminate()
    assert server.wait() == 0
    assert not any(alive(pids[role]) for role in ROLES)


@pytest.mark.parametrize(("code", "text", "ends"), [(74, "log or disk", 1), (2, "refuses", 2)])
def test_an_end_that_another_start_would_not_mend_ends_the_server(
    server: Server, code: int, text: str, ends: int
) -> None:
    server.ready()
    pids = server.pids()
    (server.state / "fail").write_text(str(code))
    os.kill(pids["replica"], signal.SIGKILL)
    assert server.wait() == ends
    assert text in server.output()
    assert not any(alive(pids[role]) for role in ROLES)


def test_a_child_that_keeps_ending_is_started_ever_more_slowly(server: Server) -> None:
    server.ready()
    (server.state / "fail").write_text("1")
    os.kill(server.pids()["replica"], signal.SIGKILL)
    wait_for(lambda: server.output().count("replica ended") >= 4, "several ends")
    assert server.answers()  # from what the responder has
    (server.state / "fail").unlink()
    wait_for(lambda: server.output().count("attached") >= 2, "the replica is back")


def test_a_second_daemon_is_refused_and_the_first_goes_on(server: Server) -> None:
    server.ready()
    second = server.start()
    assert second.wait(DEADLINE_S) == 1
    assert f"in use by process {server.process.pid}" in server.output()
    assert server.answers()
