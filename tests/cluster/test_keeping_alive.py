"""Who repeats a register costs no log entry and never expires; who does not, leaves.

``WGMAP_LONG=1`` (``make test-promises``) waits for real graces: 180 s with a TTL of one minute.
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.lab import execute, program, wait_until
from support.replica import map_register
from support.sources import Sources, address, prefix, write_peers
from support.supervised import Server
from wgmap.clock import now
from wgmap_chaos.lab.observation import admin_get

LONG = bool(os.environ.get("WGMAP_LONG"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900 if LONG else 120)]
PEERS = 40
QUIET_S = 1.0
PATIENCE_S = 10.0  # an agent repeats what is not acknowledged
TICK_S = 5.0  # of the replicated clock, and of the batches of those who were seen
GRACE_S = 180.0  # of a TTL of one minute, the shortest


def register(number: int, nonce: int = 1) -> bytes:
    return map_register(nonce, prefix(number), at=address(number), ttl=1)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path, replica="wgmap_cluster.replica")
    try:
        made.ready()
        file = write_peers(tmp_path / "peers", PEERS)
        socket = str(tmp_path / "admin.sock")
        done = execute(program("wgmap"), "--socket", socket, "peer", "import", str(file))
        assert done.returncode == 0, done.stderr
        assert repeat(made, range(PEERS)) == PEERS
        yield made
    finally:
        made.close()


def repeat(server: Server, numbers: range) -> int:
    """Give the same register of each of these, as agents do; returns how many are acknowledged."""
    end, left = now() + PATIENCE_S, {address(number): number for number in numbers}
    with Sources(server.address) as sources:
        while left and now() < end:
            for agent, number in left.items():
                sources.send(agent, register(number))
            for to, _ in sources.heard(QUIET_S):
                left.pop(to, None)
    return len(numbers) - len(left)


def ask(server: Server, path: str, **query: str) -> Any:
    return admin_get(server.config.with_name("admin.sock"), f"/v1/{path}", **query)


def applied(server: Server) -> int:
    """Return the index of the last command of the log."""
    index: int = ask(server, "status")["servers"][0]["applied"]
    return index


def present(server: Server) -> list[int]:
    """Return whose mappings there are."""
    eids = {number: prefix(number).partition("/")[0] for number in range(PEERS)}
    return [n for n, eid in eids.items() if ask(server, "resolve", eid=eid)["found"]]


def test_unchanged_registers_cost_no_log_entries(server: Server) -> None:
    before, began, acknowledged = applied(server), now(), 0
    with Sources(server.address) as sources:
        for _ in range(25):
            for number in range(PEERS):
                sources.send(address(number), register(number))
            acknowledged += sum(1 for _ in sources.heard(0.2))
    assert acknowledged == 25 * PEERS
    ticks = (now() - began) / TICK_S + 1
    grown = applied(server) - before
    assert grown <= 2 * ticks, "each tick one entry for the clock and one for who was seen"
    # A control: what is new is an entry, each time.
    before = applied(server)
    with Sources(server.address) as sources:
        for number in range(PEERS):
            sources.send(address(number), register(number, nonce=2))
        assert len({to for to, _ in sources.heard(QUIET_S)}) == PEERS
    assert applied(server) - before >= PEERS
    # Who was seen is told to the log: it is not only acknowledged.
    wait_until(
        lambda: all(one["last_seen_s"] < 4 * TICK_S for one in ask(server, "peers")),
        "all were seen lately",
    )


def kill(server: Server) -> None:
    """Kill all processes of a server at once."""
    for pid in server.pids().values():
        os.kill(pid, signal.SIGKILL)
    server.process.wait()


def test_nobody_expires_because_the_cluster_was_down_for_hours(server: Server) -> None:
    kill(server)
    # The next start is in a time in which the machine has been up two hours longer.
    server.prefix = ("unshare", "-T", "--boottime", "7200", "--fork", "--kill-child")
    if os.geteuid() != 0:
        pytest.skip("a time namespace needs root")
    server.process = server.start()
    server.ready()
    before = applied(server)
    wait_until(lambda: applied(server) > before + 2, "the leader has told the time twice", 30)
    assert present(server) == list(range(PEERS))
    assert repeat(server, range(PEERS)) == PEERS


@pytest.mark.skipif(not LONG, reason="waits for a real grace: make test-promises")
def test_who_does_not_come_back_leaves_after_its_grace_and_nobody_else(server: Server) -> None:
    lives = range(PEERS // 2)
    end = now() + GRACE_S + 4 * TICK_S
    while now() < end:
        assert repeat(server, lives) == len(lives)
        time.sleep(20)  # as agents do: they repeat their register now and then
    assert present(server) == list(lives)


@pytest.mark.skipif(not LONG, reason="stops a server for a real grace: make test-promises")
def test_nobody_expires_because_the_leader_was_suspended(server: Server) -> None:
    """As its machine is: all of it stands still, and goes on as it was."""
    pids = server.pids()
    for pid in pids.values():
        os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(GRACE_S + 2 * TICK_S)  # the fault itself, not a wait for anything
    finally:
        for pid in pids.values():
            os.kill(pid, signal.SIGCONT)
    before = applied(server)
    wait_until(lambda: applied(server) > before + 2, "the leader has told the time twice", 30)
    assert present(server) == list(range(PEERS))
    assert repeat(server, range(PEERS)) == PEERS
    assert server.pids() == pids, "who stood still with its supervisor does not hang"
