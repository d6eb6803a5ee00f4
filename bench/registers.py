"""A fleet that stays: peers that repeat their register every minute, beside lookups.

One real server (supervisor, replica, responder) with an unprotected listener on loopback; every
peer is enrolled with an address of 127.0.0.0/8 and registers from there. Prints a Markdown table:
how long ``wgmap peer import`` and the first registers took, then CPU, memory, growth of the log and
the share that was answered while the fleet only repeats itself.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.lab import execute, program  # noqa: E402
from support.replica import map_register  # noqa: E402
from support.sources import Sources, address, prefix, write_peers  # noqa: E402
from support.supervised import Server  # noqa: E402
from support.tables import request  # noqa: E402
from wgmap_chaos.lab.observation import admin_get  # noqa: E402

TURN_S = 0.01
START_S = 120.0
IMPORT_S = 1800.0
LATE_S = 2.0  # an answer that takes longer counts as none
OUTSTANDING = 256  # first registers that wait for their answer
_TICKS = os.sysconf("SC_CLK_TCK")
_TYPE_REPLY = 2


@dataclass
class Fleet:
    """What was sent and what came back."""

    sources: Sources
    waiting: dict[tuple[str, int], float] = field(default_factory=dict)  # (agent, nonce) -> sent
    answered: dict[str, int] = field(default_factory=lambda: {"register": 0, "lookup": 0})
    sent: dict[str, int] = field(default_factory=lambda: {"register": 0, "lookup": 0})
    taken: dict[str, list[float]] = field(default_factory=lambda: {"register": [], "lookup": []})

    def send(self, kind: str, number: int, nonce: int) -> None:
        """Send one datagram as an agent."""
        agent = address(number)
        if kind == "register":
            data = map_register(nonce, prefix(number), at=agent)
        else:
            data = request(prefix(number * 7919 % 1000), nonce=nonce)
        self.waiting[agent, nonce] = time.monotonic()
        self.sent[kind] += 1
        self.sources.send(agent, data)

    def hear(self) -> set[tuple[str, int]]:
        """Take in what has come; returns which datagrams are answered by it."""
        heard = set()
        for agent, data in self.sources.waiting():
            key = agent, int.from_bytes(data[4:12])
            sent = self.waiting.pop(key, None)
            if sent is None:
                continue
            heard.add(key)
            kind = "lookup" if data[0] >> 4 == _TYPE_REPLY else "register"
            took = time.monotonic() - sent
            self.answered[kind] += took <= LATE_S
            self.taken[kind].append(took)
        return heard


@dataclass
class Reading:
    """A server's processes and log at one time."""

    at: float
    cpu_s: dict[str, float]
    rss_mb: dict[str, float]
    applied: int
    wal_bytes: int


def read(server: Server) -> Reading:
    """Look at a server."""
    pids = {role: pid for role, pid in server.pids().items() if role != "supervisor"}
    status = admin_get(server.config.with_name("admin.sock"), "/v1/status")
    assert status is not None
    return Reading(
        time.monotonic(),
        {role: _cpu_s(pid) for role, pid in pids.items()},
        {role: _rss_mb(pid) for role, pid in pids.items()},
        status["servers"][0]["applied"],
        sum(path.stat().st_size for path in server.state.glob("*wal*")),
    )


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _rss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = (one for one in lines if one.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    """Run a server with an unprotected listener."""
    server = Server(folder, replica="wgmap_cluster.replica")
    try:
        server.notify.settimeout(START_S)
        server.ready()
        yield server
    finally:
        server.close()


def imported(server: Server, file: Path) -> float:
    """Import peers; returns how long it took, in seconds."""
    socket = str(server.config.with_name("admin.sock"))
    began = time.monotonic()
    argv = (program("wgmap"), "--socket", socket, "peer", "import", str(file))
    done = execute(*argv, timeout_s=IMPORT_S)
    assert done.returncode == 0, done.stderr
    return time.monotonic() - began


def register_all(fleet: Fleet, peers: int) -> float:
    """Have every peer register for the first time; returns how long that took, in seconds."""
    began = time.monotonic()
    todo = iter(range(peers))
    done = False
    while not done or fleet.waiting:
        fleet.hear()
        while not done and len(fleet.waiting) < OUTSTANDING:
            number = next(todo, None)
            done = number is None
            if number is not None:
                fleet.send("register", number, 1)
        for (agent, nonce), sent in list(fleet.waiting.items()):
            if time.monotonic() - sent > LATE_S:  # it was shed: agents repeat it as well
                del fleet.waiting[agent, nonce]
                number = int.from_bytes(bytes(map(int, agent.split(".")))) - 0x7F01_0000
                fleet.send("register", number, nonce)
        time.sleep(TURN_S / 4)
    return time.monotonic() - began


def keep_alive(fleet: Fleet, peers: int, seconds: float, lookups: int) -> None:
    """Let the fleet repeat its registers, one minute for all of it, beside lookups a second."""
    rate = {"register": peers / 60, "lookup": lookups}
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        for kind, each in rate.items():
            while fleet.sent[kind] < passed * each:
                number = fleet.sent[kind]
                nonce = 1 if kind == "register" else 1 << 40 | number
                fleet.send(kind, number % peers, nonce)
        fleet.hear()
        time.sleep(TURN_S)
    end = time.monotonic() + LATE_S
    while fleet.waiting and time.monotonic() < end:
        fleet.hear()
        time.sleep(TURN_S)


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--lookups", type=int, default=500, help="a second")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, running(Path(name)) as server:
        file = write_peers(Path(name) / "peers", options.peers)
        took = imported(server, file)
        print(f"import of {options.peers} peers: {took:.1f} s", flush=True)
        with Sources(server.address) as sources:
            took = register_all(Fleet(sources), options.peers)
            print(f"first registers: {took:.1f} s, {options.peers / took:.0f}/s", flush=True)
            fleet = Fleet(sources)
            before = read(server)
            keep_alive(fleet, options.peers, options.seconds, options.lookups)
            after = read(server)
    show(before, after, fleet)
    share = fleet.answered["register"] / fleet.sent["register"]
    return 0 if share > 0.99 else 1  # what a fleet needs to stay


def show(before: Reading, after: Reading, fleet: Fleet) -> None:
    """Print what was measured."""
    seconds = after.at - before.at
    rows: list[tuple[str, str]] = []
    for kind in ("register", "lookup"):
        taken = sorted(fleet.taken[kind]) or [0.0]
        p50, p99 = (1e3 * taken[int(len(taken) * part)] for part in (0.5, 0.99))
        rows.append((f"{kind}s a second", f"{fleet.sent[kind] / seconds:.0f}"))
        share = 100 * fleet.answered[kind] / max(1, fleet.sent[kind])
        rows.append((f"{kind}s answered within {LATE_S:g} s", f"{share:.2f} %"))
        rows.append((f"{kind}s: median, p99", f"{p50:.1f} ms, {p99:.1f} ms"))
    for role, cpu in after.cpu_s.items():
        rows.append((f"{role}: processor", f"{100 * (cpu - before.cpu_s[role]) / seconds:.0f} %"))
        rows.append((f"{role}: memory", f"{after.rss_mb[role]:.0f} MB"))
    entries = after.applied - before.applied
    grown = (after.wal_bytes - before.wal_bytes) / 1e6
    rows.append(("log entries", f"{entries} in {seconds:.0f} s"))
    rows.append(("log bytes", f"{60 * grown / seconds:.2f} MB a minute"))
    print("| what | measured |\n|---|---|")
    for what, value in rows:
        print(f"| {what} | {value} |")


if __name__ == "__main__":
    sys.exit(main())
