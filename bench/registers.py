"""A fleet that stays: peers that repeat their register every minute, beside lookups.

One real server (supervisor, replica, responder) with an unprotected listener on loopback; every
peer is enrolled with an address of 127.0.0.0/8 and registers from there. Prints a Markdown table:
how long ``wgmap peer import`` and the first registers took, then CPU, memory, growth of the log and
the share that was answered while the fleet only repeats itself. What the agents send is encoded
beforehand and sent by a program in C (``fleet/fleet.c``).
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from fleet.agents import SOURCES, Agents, Run  # noqa: E402
from lookups.servers import build  # noqa: E402

from support.lab import execute, program  # noqa: E402
from support.sources import write_peers  # noqa: E402
from support.supervised import Server  # noqa: E402
from wgmap_chaos.lab.observation import admin_get  # noqa: E402

START_S = 120.0
IMPORT_S = 1800.0
REPEATED_S = 60.0
WINDOW = 256  # first registers that wait for their answer
ENOUGH = 0.99  # of the registers are answered where a fleet stays
_TICKS = os.sysconf("SC_CLK_TCK")


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


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--lookups", type=float, default=5000, help="a second")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, running(Path(name)) as server:
        folder = Path(name)
        build(folder, SOURCES)
        agents = Agents.made(folder, server.address, options.peers)
        took = imported(server, write_peers(folder / "peers", options.peers))
        print(f"import of {options.peers} peers: {took:.1f} s", flush=True)
        began = read(server)
        run = agents.first(WINDOW)
        show("first registers", began, read(server), run)
        before = read(server)
        run = agents.keep(options.seconds, options.peers / REPEATED_S, options.lookups)
        show("registers repeated", before, read(server), run)
    share = run.register.answered / run.register.sent
    return 0 if share > ENOUGH else 1


def show(title: str, before: Reading, after: Reading, run: Run) -> None:
    """Print what was measured."""
    rows: list[tuple[str, str]] = []
    for kind, of in (("registers", run.register), ("lookups", run.lookup)):
        if of.sent:
            rows.append((f"{kind} a second", f"{of.sent / run.seconds:.0f}"))
            share = 100 * of.answered / of.sent
            rows.append((f"{kind} answered within 2 s", f"{share:.3f} % of {of.sent}"))
            times = f"{of.p50_ms:.2f} ms, {of.p99_ms:.1f} ms, {of.max_ms:.0f} ms"
            rows.append((f"{kind}: median, p99, longest", times))
    seconds = after.at - before.at
    for role, cpu in after.cpu_s.items():
        rows.append((f"{role}: processor", f"{100 * (cpu - before.cpu_s[role]) / seconds:.0f} %"))
        rows.append((f"{role}: memory", f"{after.rss_mb[role]:.0f} MB"))
    rows.append(("log entries", f"{after.applied - before.applied} in {seconds:.0f} s"))
    grown = (after.wal_bytes - before.wal_bytes) / 1e6
    rows.append(("log bytes", f"{60 * grown / seconds:.2f} MB a minute"))
    rows.append(("sent late by", f"{run.sent_late_ms:.0f} ms at most"))
    print(f"| {title} | measured |\n|---|---|")
    for what, value in rows:
        print(f"| {what} | {value} |")
    print(flush=True)


if __name__ == "__main__":
    sys.exit(main())
