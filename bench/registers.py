"""A fleet that stays: peers that repeat their register every minute, beside lookups.

One real server (supervisor, replica, responder) with an unprotected listener on loopback; every
peer is enrolled with an address of 127.0.0.0/8 and registers from there. Prints a Markdown table:
how long ``wgmap peer import`` and the first registers took, then CPU, memory, growth of the log and
the share that was answered while the fleet only repeats itself. What the agents send is encoded
beforehand and sent by a program in C (``fleet/fleet.c``). Writes CSV and PNG: what the server used
all the while.
"""

import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import results
from matplotlib.figure import Figure

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
EVERY_S = 10.0  # between two looks at the server while the fleet repeats itself
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Reading:
    """A server's processes and log at one time."""

    at: float
    cpu_s: dict[str, float]
    rss_mb: dict[str, float]
    applied: int
    wal_bytes: int


@dataclass
class Phase:
    """What was done, what came of it, and the server before, meanwhile and after."""

    title: str
    run: Run
    readings: Sequence[Reading]


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


@contextmanager
def watched(server: Server) -> Iterator[list[Reading]]:
    """Look at the server now, every EVERY_S, and at the end."""
    readings, ended = [read(server)], threading.Event()

    def watch() -> None:
        while not ended.wait(EVERY_S):
            readings.append(read(server))

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            yield readings
        finally:
            ended.set()
        watching.result()
    readings.append(read(server))


def measure(folder: Path, peers: int, seconds: float, lookups: float) -> tuple[float, list[Phase]]:
    """Return how long (seconds) the import took, and what came of both phases."""
    with running(folder) as server:
        build(folder, SOURCES)
        agents = Agents.made(folder, server.address, peers)
        took = imported(server, write_peers(folder / "peers", peers))
        with watched(server) as first:
            run = agents.first(WINDOW)
        phases = [Phase("first registers", run, first)]
        with watched(server) as repeated:
            run = agents.keep(seconds, peers / REPEATED_S, lookups)
        return took, [*phases, Phase("registers repeated", run, repeated)]


def main() -> int:
    """Measure, and write the results."""
    parser = results.parser(__doc__, "registers")
    parser.add_argument("--peers", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--lookups", type=float, default=5000, help="a second")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        took, phases = measure(Path(name), options.peers, options.seconds, options.lookups)
    begun = f"Import of {options.peers:,} peers: {took:.1f} s."
    text = "\n\n".join([begun, *map(table, phases)])
    results.publish(options, text, phases, write_csv, draw)
    register = phases[-1].run.register
    return 0 if register.answered > ENOUGH * register.sent else 1


def table(phase: Phase) -> str:
    """Write what was measured of a phase."""
    before, after, run = phase.readings[0], phase.readings[-1], phase.run
    rows: list[tuple[str, str]] = []
    for kind, of in (("registers", run.register), ("lookups", run.lookup)):
        if of.sent:
            rows.append((f"{kind} a second", f"{of.sent / run.seconds:,.0f}"))
            share = 100 * of.answered / of.sent
            rows.append((f"{kind} answered within 2 s", f"{share:.3f} % of {of.sent:,}"))
            times = f"{of.p50_ms:.2f} ms, {of.p99_ms:.1f} ms, {of.max_ms:.0f} ms"
            rows.append((f"{kind}: median, p99, longest", times))
    seconds = after.at - before.at
    for role, cpu in after.cpu_s.items():
        rows.append((f"{role}: processor", f"{100 * (cpu - before.cpu_s[role]) / seconds:.0f} %"))
        most = max(one.rss_mb[role] for one in phase.readings)
        rows.append(
            (f"{role}: memory, at the end and most", f"{after.rss_mb[role]:.0f}, {most:.0f} MB")
        )
    rows.append(("log entries", f"{after.applied - before.applied:,} in {seconds:.0f} s"))
    grown = sum(max(0, b.wal_bytes - a.wal_bytes) for a, b in pairwise(phase.readings)) / 1e6
    rows.append(("log bytes", f"{60 * grown / seconds:.2f} MB a minute"))
    rows.append(("sent late by", f"{run.sent_late_ms:.0f} ms at most"))
    return results.markdown(f"{phase.title} | measured", rows)


def write_csv(path: Path, phases: Sequence[Phase]) -> None:
    """Write a line for each process and stretch of time: processors used, memory."""
    rows = (
        [phase.title, f"{after.at - phase.readings[0].at:.1f}", role,
         f"{(cpu - before.cpu_s[role]) / (after.at - before.at):.4f}",
         f"{after.rss_mb[role]:.1f}", after.applied, after.wal_bytes]
        for phase in phases
        for before, after in pairwise(phase.readings)
        for role, cpu in after.cpu_s.items()
    )  # fmt: skip
    names = ["phase", "until_s", "process", "cores", "rss_mb", "applied", "wal_bytes"]
    results.write_rows(path, names, rows)


def draw(path: Path, phases: Sequence[Phase]) -> None:
    """Write what the server used while the fleet repeated itself as PNG."""
    phase = phases[-1]
    figure = Figure(figsize=(9, 6), layout="constrained")
    cores, memory = figure.subplots(2, 1, sharex=True)
    at = [one.at - phase.readings[0].at for one in phase.readings]
    for role in phase.readings[0].cpu_s:
        shares = [
            (after.cpu_s[role] - before.cpu_s[role]) / (after.at - before.at)
            for before, after in pairwise(phase.readings)
        ]
        cores.plot(at[1:], shares, label=role)
        memory.plot(at, [one.rss_mb[role] for one in phase.readings], label=role)
    cores.set_ylabel("processors")
    memory.set_ylabel("MB resident")
    memory.set_xlabel("seconds")
    for axes in (cores, memory):
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.2)
        axes.legend()
    figure.suptitle("A fleet that repeats its registers every minute, beside lookups")
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    sys.exit(main())
