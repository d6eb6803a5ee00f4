"""The longest pause of lookups while a server is busy with everything else.

One real server (supervisor, replica, responder) with 100,000 peers; one lookup each 2 ms whatever
comes back, from a program in C over all other priorities, and at the same moment one datagram to an
echo in C, which tells what the machine itself pauses. In turns: nothing else; 1,000 registers a
second, each of which is a change, on disk before it is acknowledged, that is told to an agent;
snapshots of everything beside them; and an admin API that is never at rest. Wants root for its
priorities. Prints Markdown, and writes CSV and PNG.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import results  # noqa: E402
from fleet import agents  # noqa: E402
from fleet.agents import Agents, Run  # noqa: E402
from lookups import servers  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from registers import START_S, imported  # noqa: E402
from stream import asked  # noqa: E402
from stream.asked import ASKING, ECHO, FIRST_ASKING, LONG_S, SERVER, Stream  # noqa: E402
from usage import Groups, Reading  # noqa: E402

from support.sources import write_peers  # noqa: E402
from support.supervised import Server  # noqa: E402
from wgmap_chaos.lab.observation import admin_get  # noqa: E402
from wgmap_chaos.priority import favour  # noqa: E402

WINDOW = 1024  # first registers that wait for their answer
WARM_A_SECOND = 5000.0  # lookups, until each host was asked for once
REPLICA = "stream.replica"


@dataclass(frozen=True, slots=True)
class Phase:
    """What goes on beside the lookups."""

    name: str
    lookups: bool = True
    registers: bool = False
    snapshots: bool = False
    operators: bool = False


PHASES = (
    Phase("idle", lookups=False),
    Phase("lookups alone"),
    Phase("and registers", registers=True),
    Phase("and snapshots", registers=True, snapshots=True),
    Phase("and the admin API", registers=True, snapshots=True, operators=True),
)


@dataclass(frozen=True)
class Turn:
    """One phase, once."""

    phase: Phase
    turn: int
    streams: dict[str, Stream]  # by who was asked
    registers: Run | None
    snapshots: int  # written meanwhile
    operators: dict[str, int]  # what was answered to them
    shares: dict[str, float] = field(default_factory=dict)  # of a processor, by process


@dataclass
class Bench:
    """What is measured on."""

    folder: Path
    server: Server
    echo: int  # its port
    agents: Agents
    peers: int
    groups: Groups
    options: argparse.Namespace
    numbers: Iterator[int] = field(default_factory=lambda: count(agents.FIRST_NONCE + 1))

    @property
    def admin(self) -> Path:
        """The admin API's socket."""
        return self.server.config.with_name("admin.sock")

    def run(self, phase: Phase, turn: int) -> Turn:
        """Measure a phase once."""
        number = next(self.numbers)
        written, before = self._snapshots(), Reading.take(self.groups)
        told: dict[str, int] = {}
        registers: Future[Run] | None = None
        with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
            seconds = self.options.seconds
            if phase.registers:
                registers = pool.submit(self.agents.move, seconds, self.options.registers, number)
            if phase.snapshots:
                stack.enter_context(self._snapshots_each(self.options.snapshot_every))
            if phase.operators:
                stack.enter_context(self._operators(number, told))
            streams = self._ask(seconds, self.options.lookups, server=phase.lookups)
        after = Reading.take(self.groups)
        shares = {name: after.share(before, name) for name in self.groups}
        run = None if registers is None else registers.result()
        return Turn(phase, turn, streams, run, self._snapshots() - written, told, shares)

    def warm(self) -> None:
        """Have each host asked for once: from now on somebody is told of each move."""
        self._ask(self.peers / WARM_A_SECOND, WARM_A_SECOND, server=True)

    def _ask(self, seconds: float, a_second: float, *, server: bool) -> dict[str, Stream]:
        host, port = self.server.address
        places = (host, port if server else 0), (servers.ADDRESS, self.echo)
        streams = asked.ask(
            self.folder, *places, seconds=seconds, a_second=a_second, hosts=self.peers
        )
        found = dict(zip((SERVER, ECHO), streams, strict=True))
        return found if server else {ECHO: found[ECHO]}

    def _snapshots(self) -> int:
        counters = admin_get(self.admin, "/v1/counters")
        assert counters is not None
        return int(counters["log"]["snapshots_written"])

    @contextmanager
    def _snapshots_each(self, every_s: float) -> Iterator[None]:
        """Have the replica write one every so often."""
        ended = threading.Event()

        def work() -> None:
            while not ended.wait(every_s):
                os.kill(self.server.pids()["replica"], signal.SIGUSR1)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    @contextmanager
    def _operators(self, number: int, told: dict[str, int]) -> Iterator[None]:
        command = [sys.executable, "-m", "stream.operators", str(self.admin), str(number)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            yield
            out, _ = process.communicate()
            told.update(json.loads(out))
        finally:
            process.kill()
            process.wait()


@contextmanager
def ground(options: argparse.Namespace) -> Iterator[Bench]:
    """Bring a server with all its peers up, and down again."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wgmap-pauses-")))
        for sources in (servers.SOURCES, agents.SOURCES, asked.SOURCES):
            servers.build(folder, sources)
        os.environ["PYTHONPATH"] = str(Path(__file__).parent)
        server = Server(folder, replica=REPLICA)
        stack.callback(server.close)
        server.notify.settimeout(START_S)
        server.ready()
        echo = stack.enter_context(servers.in_c(folder, "echo"))
        pids = server.pids()
        favour([os.getpid(), echo.pid, *pids.values()])  # and what is started from here
        groups = {name: (pids[name],) for name in ("responder", "replica")} | {ECHO: (echo.pid,)}
        fleet = Agents.made(folder, server.address, options.peers)
        imported(server, _peers_file(folder, options.peers))
        fleet.first(WINDOW)
        yield Bench(folder, server, echo.port, fleet, options.peers, groups, options)


def _peers_file(folder: Path, count: int) -> Path:
    """Write those that register, and behind them those that ask."""
    file = write_peers(folder / "peers", count)
    first = int.from_bytes(map(int, FIRST_ASKING.split(".")))
    with file.open("a") as more:
        for number in range(ASKING):
            address = ".".join(map(str, (first + number).to_bytes(4)))
            own = [f"10.240.{number >> 8}.{number & 255}/32"]
            peer = {"name": f"asking{number}", "prefixes": own, "control_address": address}
            more.write(json.dumps(peer) + "\n")
    return file


def table(found: Sequence[Turn]) -> str:
    """Write medians of the turns, and the worst."""
    lines = [
        "| what goes on | asked | a second | p50 ms | p99 | p99.9 | longest, median | longest "
        f"| over {LONG_S * 1e3:.0f} ms | pauses | a second | lost | sent late: p99 ms | longest "
        "| processor |",
        "|---" * 15 + "|",
    ]
    for phase in dict.fromkeys(one.phase for one in found):
        turns = [one for one in found if one.phase == phase]
        lines += [_line(phase, who, turns) for who in turns[0].streams]
    return "\n".join([*lines, "", *_beside(found)])


def _line(phase: Phase, who: str, turns: Sequence[Turn]) -> str:
    streams = [one.streams[who] for one in turns]
    parts = (median(one.part(share) for one in streams) for share in (0.5, 0.99, 0.999, 1.0))
    worst = max(one.part(1.0) for one in streams)
    seconds = sum(one.seconds for one in streams)
    pauses = sum(one.pauses for one in streams)
    asked_a_second = sum(len(one.due) for one in streams) / seconds
    times = " | ".join(_ms(value) for value in (*parts, worst))
    late = median(results.quantile(one.late, 0.99) for one in streams)
    return (
        f"| {phase.name} | {who} | {asked_a_second:,.0f} | {times} "
        f"| {sum(one.long for one in streams)} | {pauses} | {pauses / seconds:.3f} "
        f"| {sum(one.lost for one in streams)} "
        f"| {_ms(late)} | {_ms(max(one.late[-1] for one in streams))} "
        f"| {median(one.shares[who] for one in turns):.0%} |"
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f}" if seconds < 0.1 else f"{seconds * 1e3:.0f}"


def _beside(found: Sequence[Turn]) -> Iterator[str]:
    """Say what was done meanwhile, so that it can be seen that it was."""
    yield ("| what goes on | registers acknowledged a second | p50 ms | p99 | longest | lost "
           "| snapshots | replica's processor | operators were answered |")  # fmt: skip
    yield "|---" * 9 + "|"
    for phase in dict.fromkeys(one.phase for one in found):
        turns = [one for one in found if one.phase == phase]
        runs = [one.registers for one in turns if one.registers is not None]
        cells = ["-"] * 5
        if runs:
            kept = [one.register for one in runs]
            rate = sum(one.answered for one in kept) / sum(
                one.streams[ECHO].seconds for one in turns
            )
            cells = [f"{rate:,.0f}", *(f"{median(values):.1f}" for values in (
                [one.p50_ms for one in kept], [one.p99_ms for one in kept])),
                f"{max(one.max_ms for one in kept):.0f}",
                f"{sum(one.sent - one.answered for one in kept)}"]  # fmt: skip
        totals: dict[str, int] = {}
        for one in turns:
            for what, many in one.operators.items():
                totals[what] = totals.get(what, 0) + many
        said = ", ".join(f"{many:,} {what}" for what, many in sorted(totals.items())) or "-"
        share = median(one.shares["replica"] for one in turns)
        snapshots = sum(one.snapshots for one in turns)
        yield f"| {phase.name} | {' | '.join(cells)} | {snapshots} | {share:.0%} | {said} |"


def write_csv(path: Path, found: Sequence[Turn]) -> None:
    """Write one line for each turn and who was asked."""
    head = ["phase", "turn", "asked", "count", "seconds", "p50_ms", "p99_ms", "p999_ms", "max_ms",
            "over_20_ms", "pauses", "lost", "late_p99_ms", "late_max_ms", "processor",
            "registers", "registers_p50_ms", "registers_p99_ms", "registers_max_ms", "snapshots",
            "replica_processor"]  # fmt: skip

    def line(one: Turn, who: str) -> list[object]:
        stream = one.streams[who]
        parts = [stream.part(share) * 1e3 for share in (0.5, 0.99, 0.999, 1.0)]
        late = [results.quantile(stream.late, share) * 1e3 for share in (0.99, 1.0)]
        run = one.registers.register if one.registers is not None else None
        beside = [run.answered, run.p50_ms, run.p99_ms, run.max_ms] if run else ["", "", "", ""]
        return [
            *(one.phase.name, one.turn, who, len(stream.due), f"{stream.seconds:.3f}"),
            *(f"{value:.6g}" for value in parts),
            *(stream.long, stream.pauses, stream.lost),
            *(f"{value:.6g}" for value in (*late, one.shares[who])),
            *(*beside, one.snapshots, f"{one.shares['replica']:.6g}"),
        ]

    results.write_rows(path, head, (line(one, who) for one in found for who in one.streams))


def draw(path: Path, found: Sequence[Turn]) -> None:
    """Write which share of the answers took longer than so much as PNG."""
    figure = Figure(figsize=(12, 4.8), layout="constrained")
    for axes, who in zip(figure.subplots(1, 2, sharey=True, sharex=True), (SERVER, ECHO),
                         strict=True):  # fmt: skip
        for phase in dict.fromkeys(one.phase for one in found if who in one.streams):
            turns = [one for one in found if one.phase == phase]
            took = sorted(at for one in turns for at in one.streams[who].took)
            above = [1 - number / len(took) for number in range(len(took))]
            axes.step([at * 1e3 for at in took], above, where="post", label=phase.name)
        axes.axvline(LONG_S * 1e3, color="tab:red", linewidth=1)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("ms from the question to the answer")
        axes.set_title(who, fontsize="medium")
        axes.grid(visible=True, which="both", alpha=0.2)
        axes.legend(fontsize="small")
    figure.suptitle("Share of the answers that took longer; red: the longest that is promised")
    figure.savefig(path, dpi=90)


def main() -> int:
    """Measure, and write the results."""
    parser = results.parser(__doc__, "pauses")
    parser.add_argument("--peers", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=12.0, help="of each phase")
    parser.add_argument("--lookups", type=float, default=500.0, help="a second")
    parser.add_argument("--registers", type=float, default=1000.0, help="a second")
    parser.add_argument("--snapshot-every", type=float, default=3.0, metavar="S")
    options = parser.parse_args()
    found: list[Turn] = []
    with ground(options) as bench:
        bench.warm()
        for turn in range(options.turns):
            for phase in PHASES:
                found.append(bench.run(phase, turn))
                results.keep(options, found, write_csv)
                print(table(found[-1:]), file=sys.stderr, flush=True)
    results.publish(options, table(found), found, write_csv, draw)
    return 0


if __name__ == "__main__":
    sys.exit(main())
