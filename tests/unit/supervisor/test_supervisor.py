"""A real supervisor with real children: the responder itself, and a stand-in for the replica."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.tables import key, request
from wgmap.lisp.codec import decode
from wgmap.lisp.messages import MapReply

DEADLINE_S = 15.0
ROLES = ("supervisor", "replica", "responder")
PROGRAM = """
import sys
from pathlib import Path
from wgmap import log
from wgmap.errors import WgmapError
from wgmap_cluster.supervisor import supervisor
log.setup("wgmap-server")
try:
    supervisor.run(Path(sys.argv[1]), "support.stub_replica")
except WgmapError as error:
    print(error, file=sys.stderr)
    sys.exit(int(error.exit_code))
"""


def wait_for(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


class Server:
    """A supervisor under test."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.state.mkdir(mode=0o700)
        self.address = self._free_address()
        self.config = folder / "server.toml"
        self.config.write_text(
            f'[server]\nname = "ms1"\nstate_dir = "{self.state}"\n'
            f'[control]\nunprotected = true\nlisten = "{self.address[0]}:{self.address[1]}"\n'
        )
        self.log = (folder / "log").open("w+b")
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(folder / "notify"))
        self.notify.settimeout(DEADLINE_S)
        self.process = self.start()

    @staticmethod
    def _free_address() -> tuple[str, int]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.20", 0))
            address: tuple[str, int] = probe.getsockname()
            return address

    def start(self) -> subprocess.Popen[bytes]:
        tests = str(Path(__file__).parents[2])
        environment = os.environ | {"PYTHONPATH": tests, "NOTIFY_SOCKET": self.notify.getsockname()}
        command = [sys.executable, "-c", PROGRAM, str(self.config)]
        return subprocess.Popen(command, env=environment, stdout=self.log, stderr=self.log)

    def ready(self) -> None:
        assert self.notify.recv(100).startswith(b"READY=1")

    def pids(self) -> dict[str, int]:
        found: dict[str, int] = json.loads((self.state / "pids.json").read_text())
        return found

    def answers(self) -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as agent:
            agent.bind(("127.0.0.21", 0))
            agent.settimeout(0.2)
            agent.sendto(request("10.66.2.1/32"), self.address)
            try:
                reply = decode(agent.recv(4096))
            except TimeoutError:
                return False
        assert isinstance(reply, MapReply)
        return reply.records[0].locators[0].key == key("a2")

    def output(self) -> str:
        self.log.seek(0)
        return self.log.read().decode()

    def wait(self) -> int:
        return self.process.wait(DEADLINE_S)

    def close(self) -> None:
        children = []
        if (self.state / "pids.json").exists():
            children = [self.pids()[role] for role in ROLES[1:]]
        self.process.kill()
        self.process.wait()
        for pid in children:
            wait_for(lambda pid=pid: not alive(pid), f"child {pid} ends")  # type: ignore[misc]
        self.log.close()
        self.notify.close()


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
    assert server.notify.recv(100) == b"STOPPING=1"


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
