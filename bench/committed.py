"""Registers that are committed: how many a second, and how long one takes.

Real servers (three, then five) over a real mesh, asked through real control tunnels by a crowd of
members: so many registers are out at a time, each of another member, at the leader and at a
follower. *committed* is a change, which a quorum has on disk before it is acknowledged; *repeated*
says what the server knows already and costs no log entry: the same way without the log. Wants root.
Prints Markdown, and writes CSV and PNG.
"""

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import measured
import results
from crowd.members import members
from crowd.place import Crowd, crowd, enrol
from crowd.registers import Kind
from matplotlib.figure import Figure
from measured import Notes, Value, pick
from usage import Groups, Reading, running

from wgmap_chaos.lab import commands, inventory
from wgmap_chaos.lab.inventory import Inventory, ServerEntry
from wgmap_chaos.lab.observation import admin_get
from wgmap_chaos.lab.relay import Quality
from wgmap_chaos.priority import favour, of_lab

KINDS = (Kind.COMMITTED, Kind.REPEATED)
ROLES = ("leader", "follower")
TIMES = ("p50_ms", "p90_ms", "p99_ms", "max_ms")
SPARE = 1.2  # members for each register that is out


@dataclass(kw_only=True)
class Bench(Notes):
    """What is measured on, and what came of it."""

    lab: Inventory
    crowd: Crowd
    seconds: float

    def asked(self, role: str) -> ServerEntry:
        """Return the server that has a role."""
        status = admin_get(self.lab.servers[0].admin_socket, "/v1/status")
        assert status is not None
        leads = {one.name: one.name == status["leader"] for one in self.lab.servers}
        return next(one for one in self.lab.servers if leads[one.name] == (role == "leader"))

    def groups(self) -> Groups:
        """Return the processes that are watched."""
        servers = self.lab.servers
        return {
            "replicas": running(*(one.pids["replica"] for one in servers)),
            "responders": running(*(one.pids["responder"] for one in servers)),
            "wireguard-go": running(*(p for one in servers for p in one.wireguard.values())),
        }

    def run(self, role: str, window: int, kind: Kind) -> None:
        """Measure one row once."""
        server, groups = self.asked(role), self.groups()
        before, log = Reading.take(groups), _log_bytes(server)
        done = self.crowd.registers(server.name, window, self.seconds, kind)
        after, grown = Reading.take(groups), _log_bytes(server) - log
        phase = f"{len(self.lab.servers)} servers, {kind}"

        def note(figure: str, value: float, unit: str = "") -> None:
            peers = int(done["members"])
            self.note(phase, peers, role, figure, value, unit, window=window)

        note("rate", done["count"] / done["seconds"], "1/s")
        for name in TIMES:
            note(name.removesuffix("_ms"), done[name], "ms")
        note("said again", done["repeated"])
        note("lost", done["lost"])
        if kind is Kind.COMMITTED and grown > 0:  # no snapshot came meanwhile
            note("log each", grown / max(1, done["count"]), "bytes")
        for name in groups:
            each = after.cpu_s(before, name) / max(1, done["count"]) * 1e6
            note(f"{name} each", each, "us")


def _log_bytes(server: ServerEntry) -> int:
    return sum(path.stat().st_size for path in server.state_dir.glob("*wal*"))


@contextmanager
def ground(servers: int, peers: int, seconds: float) -> Iterator[Bench]:
    """Bring a cluster and its members up, and down again."""
    with tempfile.TemporaryDirectory(prefix="wgmap-scale-") as name:
        directory = Path(name)
        try:
            commands.up(directory, servers, 0, Quality())
            lab = inventory.read(directory / "lab.json")
            with crowd(directory, lab) as them:
                favour([os.getpid(), them.pid, *of_lab(lab)])
                enrol(lab, members(0, peers))
                them.join(0, peers)
                yield Bench(lab=lab, crowd=them, seconds=seconds)
        finally:
            commands.down(directory)


def table(values: Sequence[Value]) -> str:
    """Write medians of the turns."""
    lines = [
        "| servers, registers | asked is the | out at a time | a second | p50 ms | p90 | p99 | max "
        "| said again | lost | replicas: processor each | responders | wireguard-go | log each |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    rows = dict.fromkeys((one.phase, one.process, one.window) for one in values)
    for phase, role, window in rows:
        of: dict[str, Any] = {"phase": phase, "process": role, "window": window}
        times = " | ".join(
            f"{_median(values, of, name):.1f}" for name in ("p50", "p90", "p99", "max")
        )
        costs = " | ".join(
            f"{_median(values, of, f'{name} each'):.0f} us"
            for name in ("replicas", "responders", "wireguard-go")
        )
        log = _median(values, of, "log each")
        lines.append(
            f"| {phase} | {role} | {window} | {_median(values, of, 'rate'):,.0f} | {times} "
            f"| {_sum(values, of, 'said again')} | {_sum(values, of, 'lost')} | {costs} "
            f"| {'-' if log != log else f'{log:.0f} bytes'} |"  # noqa: PLR0124  # NaN: none
        )
    return "\n".join(lines)


def _median(values: Sequence[Value], of: dict[str, Any], figure: str) -> float:
    found = [one.value for one in pick(values, **of, figure=figure)]
    return median(found) if found else float("nan")


def _sum(values: Sequence[Value], of: dict[str, Any], figure: str) -> int:
    return int(sum(one.value for one in pick(values, **of, figure=figure)))


def draw(path: Path, values: Sequence[Value]) -> None:
    """Write rates and times over the registers that are out as PNG."""
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    panels = zip(figure.subplots(1, 2), (("rate", "a second"), ("p50", "median, ms")), strict=True)
    for axes, (what, title) in panels:
        for phase, role in dict.fromkeys((one.phase, one.process) for one in values):
            windows = sorted({one.window for one in pick(values, phase=phase, process=role)})
            rows = [_median(values, {"phase": phase, "process": role, "window": window}, what)
                    for window in windows]  # fmt: skip
            style = "o-" if role == "leader" else "s--"
            axes.plot(windows, rows, style, label=f"{phase}, {role}")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("registers out at a time")
        axes.set_title(title, fontsize="medium")
        axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=100)


def main() -> int:
    """Measure, and write the results."""
    parser = results.parser(__doc__, "committed")
    parser.add_argument("--servers", type=int, nargs="+", default=[3, 5])
    parser.add_argument("--windows", type=int, nargs="+", default=[1, 4, 16, 64, 256, 1024])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each turn")
    options = parser.parse_args()
    values: list[Value] = []
    for servers in options.servers:
        peers = round(SPARE * max(options.windows))
        with ground(servers, peers, options.seconds) as bench:
            for turn in range(options.turns * len(options.windows)):
                window = options.windows[turn % len(options.windows)]
                for role in ROLES:
                    for kind in KINDS:
                        bench.run(role, window, kind)
            values += bench.values
    values.sort(key=lambda one: (one.phase, ROLES.index(one.process), one.window))
    results.publish(options, table(values), values, measured.write, draw)
    return 0


if __name__ == "__main__":
    sys.exit(main())
