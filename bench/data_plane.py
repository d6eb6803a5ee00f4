"""An on-demand tunnel beside one made by hand, once both stand (the paper's figure 11).

Two agents' hosts; between them the tunnel that a first contact made, and another pair of
wireguard-go interfaces where everything was installed by hand. TCP throughput (iperf3) and round
trips in turns. While a tunnel carries data, the packets that its agents read from their TUN are
counted, with the processor time of the agents: nothing of a flow that stands goes through them.
Wants root and iperf3. Prints Markdown, and writes CSV.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import results
from contact.floor import Floor
from contact.probe import Prober, prober
from matplotlib.figure import Figure
from results import quantile
from usage import Usage

from wgmap.addresses import IPAddress
from wgmap_chaos.lab import inventory
from wgmap_chaos.lab.inventory import AgentEntry, Inventory
from wgmap_chaos.programs import run

HAND, DEMAND = "made by hand", "on demand"
PORT = 5201  # iperf3's own
IDLE_ECHOES = 200


@dataclass(frozen=True, slots=True)
class Row:
    """One turn over one tunnel."""

    family: int
    tunnel: str
    megabits: float
    echoes_ms: tuple[float, ...]
    segments: int  # of TCP, that were sent
    captured: int  # packets that both agents read from their TUN meanwhile
    agents_cpu_s: float


def _captured(agents: Sequence[AgentEntry]) -> int:
    """Count the packets that the kernel gave to the agents, by their TUN interfaces."""
    total = 0
    for agent in agents:
        command = ["/usr/sbin/ip", "-n", agent.netns, "-s", "-json", "link", "show", agent.tun]
        shown = subprocess.run(command, capture_output=True, check=True)
        total += json.loads(shown.stdout)[0]["stats64"]["tx"]["packets"]
    return total


def _cpu_s(agents: Sequence[AgentEntry]) -> float:
    pids = [agent.pids["agent"] for agent in agents]
    return Usage.of(*(pid for pid in pids if pid is not None)).cpu_s


def _throughput(asking: AgentEntry, to: IPAddress, seconds: float) -> tuple[float, int]:
    command = ["/usr/sbin/ip", "netns", "exec", asking.netns, "/usr/bin/iperf3", "-c", str(to)]
    command += ["-p", str(PORT), "-t", str(seconds), "-J"]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    end = json.loads(out.stdout)["end"]["sum_received"]
    segments = end["bytes"] // 1380  # of a tunnel's MTU, about
    return end["bits_per_second"] / 1e6, segments


def _echoes(asking: Prober, to: IPAddress) -> tuple[float, ...]:
    replies = [asking.ask(to).took_ms for _ in range(IDLE_ECHOES)]
    return tuple(one for one in replies if one is not None)


async def measure(lab: Inventory, turns: int, seconds: float) -> list[Row]:
    """Measure both tunnels in turns, both families."""
    asking, asked = lab.agents[0], lab.agents[1]
    rows: list[Row] = []
    floor = Floor()
    with ExitStack() as stack:
        echo = stack.enter_context(prober(asking.netns))
        stack.enter_context(_listening(asked))
        await floor.open((asking, asked))
        try:
            for turn in range(2 * turns):
                family = 4 if turn % 2 == 0 else 6
                by_hand = floor.eid(asked, family)
                on_demand = asked.eids[0 if family == 4 else 1]
                for tunnel, to in ((HAND, by_hand), (DEMAND, on_demand)):
                    rows.append(_turn((asking, asked), echo, tunnel, to, seconds))
        finally:
            await floor.close()
    return rows


def _turn(
    agents: tuple[AgentEntry, AgentEntry], echo: Prober, tunnel: str, to: IPAddress, seconds: float
) -> Row:
    if echo.ask(to).replied is None:  # the first contact, where there was none yet
        raise RuntimeError(f"{to} does not answer")
    _echoes(echo, to)  # what a first contact leaves behind is done by the end of these
    captured, cpu = _captured(agents), _cpu_s(agents)
    megabits, segments = _throughput(agents[0], to, seconds)
    echoes = _echoes(echo, to)
    meanwhile = _captured(agents) - captured
    return Row(to.version, tunnel, megabits, echoes, segments, meanwhile, _cpu_s(agents) - cpu)


def _listening(asked: AgentEntry) -> ExitStack:
    """Run iperf3's server in an agent's namespace until the stack is closed."""
    command = ["/usr/sbin/ip", "netns", "exec", asked.netns, "/usr/bin/iperf3", "-s"]
    command += ["-p", str(PORT), "--forceflush"]
    stack = ExitStack()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    assert process.stdout is not None
    for line in process.stdout:
        if "listening" in line.lower():
            break
    else:
        stack.close()
        raise RuntimeError("iperf3 does not listen")
    return stack


def table(rows: Sequence[Row]) -> str:
    """Write medians, ratios, and what the agents had to do with it."""
    lines = [
        "| family | tunnel | Mbit/s, median | ratio | round trip, median | ratio | segments sent "
        "| packets that the agents saw | agents' processor time |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for family in (4, 6):
        base = _of(rows, family, HAND)
        for tunnel in (HAND, DEMAND):
            mine = _of(rows, family, tunnel)
            rate, echo = _rate(mine), _echo(mine)
            lines.append(
                f"| IPv{family} | {tunnel} | {rate:.0f} | {rate / _rate(base):.2f} "
                f"| {echo:.3f} ms | {echo / _echo(base):.2f} "
                f"| {sum(row.segments for row in mine):,} | {sum(row.captured for row in mine)} "
                f"| {sum(row.agents_cpu_s for row in mine):.2f} s |"
            )
    return "\n".join(lines)


def _of(rows: Sequence[Row], family: int, tunnel: str) -> list[Row]:
    return [row for row in rows if (row.family, row.tunnel) == (family, tunnel)]


def _rate(rows: Sequence[Row]) -> float:
    return quantile([row.megabits for row in rows], 0.5)


def _echo(rows: Sequence[Row]) -> float:
    return quantile([one for row in rows for one in row.echoes_ms], 0.5)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write one line a turn."""

    def line(row: Row) -> list[object]:
        echo = f"{quantile(row.echoes_ms, 0.5):.4f}"
        return [row.family, row.tunnel, f"{row.megabits:.1f}", echo, row.segments, row.captured]

    head = ["family", "tunnel", "megabits", "echo_p50_ms", "segments", "captured"]
    results.write_rows(path, head, map(line, rows))


def draw(path: Path, rows: Sequence[Row]) -> None:
    """Write every turn as PNG: throughput and round trip, by hand and on demand."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    rate, echo = figure.subplots(1, 2)
    for family in (4, 6):
        for tunnel in (HAND, DEMAND):
            turns, label = _of(rows, family, tunnel), f"IPv{family}, {tunnel}"
            rate.plot([row.megabits for row in turns], "o-", label=label)
            echo.plot([quantile(row.echoes_ms, 0.5) for row in turns], "o-", label=label)
    for axes, title in ((rate, "Mbit/s"), (echo, "round trip, ms")):
        axes.set_ylim(bottom=0)
        axes.set_xlabel("turn")
        axes.set_title(title, fontsize="medium")
        axes.grid(visible=True, alpha=0.2)
        axes.legend()
    figure.savefig(path, dpi=100)


def main() -> int:
    """Measure, and print a table; 1 where the agents saw packets of a flow that stands."""
    parser = results.parser(__doc__, "data-plane")
    parser.add_argument("--turns", type=int, default=7, help="of each tunnel and family")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each transfer")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wgmap-bench-") as name:
        sizes = ["--servers", "3", "--agents", "2"]
        try:
            run("wgmap-chaos", "lab", "up", *sizes, "--dir", name, timeout_s=180)
            lab = inventory.read(Path(name) / "lab.json")
            rows = asyncio.run(measure(lab, options.turns, options.seconds))
        finally:
            run("wgmap-chaos", "lab", "down", "--dir", name)
    results.publish(options, table(rows), rows, write_csv, draw)
    return 1 if sum(row.captured for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
