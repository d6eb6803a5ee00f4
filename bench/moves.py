"""Endpoints that move: how long a flow is silent, beside WireGuard alone.

Three servers and two agents; each trial is one move under two flows, one through wgmap and one
through WireGuard with static endpoints. Exit code 0 only if every target was met. Wants root.
Prints Markdown, and writes CSV and PNG.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import results
from matplotlib.figure import Figure

from wgmap.errors import ExitCode
from wgmap_chaos.lab import commands
from wgmap_chaos.lab.relay import Quality
from wgmap_chaos.moves.plain import PlainTunnel
from wgmap_chaos.moves.scenarios import SCENARIOS, Ground, Measured, Scenario

MEDIAN_LIMIT_S = 0.3
WINDOW_S = 3.0  # after a move, and the most that a flow can be seen to be silent


@dataclass
class Case:
    """One scenario under one delay with one family, and its trials."""

    scenario: Scenario
    delay_ms: int
    family: int  # 4 or 6, of the flow
    trials: list[Measured] = field(default_factory=list)

    @property
    def wgmap(self) -> list[float]:
        """The silences (seconds) of the flow through wgmap."""
        return sorted(one.wgmap_s for one in self.trials)

    @property
    def plain(self) -> list[float]:
        """The silences (seconds) of the flow through WireGuard alone."""
        return sorted(one.plain_s for one in self.trials if one.plain_s is not None)

    @property
    def held(self) -> bool:
        """Say whether the targets were met."""
        median = statistics.median(self.wgmap)
        limit = MEDIAN_LIMIT_S if self.scenario.limit_s <= 1 else self.scenario.limit_s
        return median < limit and self.wgmap[-1] < self.scenario.limit_s


async def measure(directory: Path, options: argparse.Namespace) -> list[Case]:
    """Let everything befall; what was measured is written after each case."""
    ground = Ground(directory, window_s=WINDOW_S, favoured=True)
    cases: list[Case] = []
    async with PlainTunnel(ground.one, ground.two) as plain:
        for delay in options.delay:
            commands.set_quality(directory, float(delay), 0.0)
            for scenario in SCENARIOS:
                if options.only not in scenario.title:
                    continue
                for family in (0, 1):
                    case = Case(scenario, delay, (4, 6)[family])
                    for _ in range(options.trials):
                        case.trials.append(await ground.trial(scenario, family, plain))
                    cases.append(case)
                    print(table([case]).splitlines()[-1], file=sys.stderr, flush=True)
                    results.keep(options, cases, write_csv)
    return cases


def table(cases: Sequence[Case]) -> str:
    """Write a Markdown table; what did not come back within the window is ``> window``."""
    head = (
        "what happens | one-way delay | flow | wgmap: median | worst | WireGuard alone: median |"
        " worst | trials"
    )
    return results.markdown(head, map(_cells, cases))


def _cells(case: Case) -> tuple[str, ...]:
    plain = case.plain
    return (
        case.scenario.title,
        f"{case.delay_ms} ms",
        f"IPv{case.family}",
        _time(statistics.median(case.wgmap)),
        _time(case.wgmap[-1]),
        _time(statistics.median(plain)) if plain else "",
        _time(plain[-1]) if plain else "",
        str(len(case.trials)),
    )


def _time(seconds: float) -> str:
    return f"> {WINDOW_S:.0f} s" if seconds >= WINDOW_S - 0.1 else f"{seconds * 1e3:.0f} ms"


def conditions() -> str:
    """Say on what it was measured."""
    load = os.getloadavg()[1]
    return (
        "Three servers, two agents, wireguard-go in network namespaces of one machine with"
        f" {os.cpu_count()} processors; its load over the last five minutes was {load:.0f}, and"
        " what is compared has one priority above other work."
    )


def write_csv(path: Path, cases: Sequence[Case]) -> None:
    """Write one line a trial: how long (seconds) each flow was silent."""
    rows = (
        [case.scenario.title, case.delay_ms, case.family, f"{one.wgmap_s:.4f}",
         "" if one.plain_s is None else f"{one.plain_s:.4f}"]
        for case in cases
        for one in case.trials
    )  # fmt: skip
    results.write_rows(path, ["scenario", "delay_ms", "family", "wgmap_s", "plain_s"], rows)


def draw(path: Path, cases: Sequence[Case]) -> None:
    """Write the picture as PNG: every trial a point, one row for each case."""
    figure = Figure(figsize=(11, 1 + 0.34 * len(cases)), layout="constrained")
    axes = figure.subplots()
    rows = list(enumerate(reversed(cases)))
    for name, marker, color in (("plain", "x", "tab:gray"), ("wgmap", "o", "tab:blue")):
        points = [(max(value, 1e-3), row) for row, case in rows for value in getattr(case, name)]
        label = "wgmap" if name == "wgmap" else "WireGuard alone, static endpoints"
        at, height = [value for value, _ in points], [row for _, row in points]
        axes.scatter(at, height, marker=marker, color=color, label=label, s=22)
    axes.axvline(MEDIAN_LIMIT_S, color="tab:green", linewidth=1, label="target: median")
    axes.axvline(1.0, color="tab:red", linewidth=1, label="target: worst")
    axes.set_yticks([row for row, _ in rows])
    axes.set_yticklabels(
        [f"{c.scenario.title}, {c.delay_ms} ms, IPv{c.family}" for _, c in rows], fontsize=8
    )
    axes.set_xscale("log")
    axes.set_xlabel("seconds without an arrival (log)")
    axes.set_title("Endpoints that change: how long a flow is silent")
    axes.grid(visible=True, which="both", axis="x", alpha=0.2)
    axes.legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> int:
    """Bring a lab up, measure, write the results, take the lab down."""
    parser = results.parser(__doc__, "moves")
    parser.add_argument("--trials", type=int, default=5, help="of each case")
    parser.add_argument("--delay", type=int, nargs="+", default=[0, 20], help="one way, in ms")
    parser.add_argument("--only", default="", help="scenarios whose title contains this")
    parser.add_argument("--short", action="store_true", help="one trial, 20 ms: does it work?")
    options = parser.parse_args()
    if options.short:
        options.trials, options.delay = 1, [20]
    with tempfile.TemporaryDirectory(prefix="wgmap-moves-") as name:
        directory = Path(name)
        try:
            commands.up(directory, 3, 2, Quality())
            cases = asyncio.run(measure(directory, options))
        finally:
            commands.down(directory)
    results.publish(options, f"{conditions()}\n\n{table(cases)}", cases, write_csv, draw)
    missed = [case for case in cases if not case.held]
    for case in missed:
        what = f"{case.scenario.title}, {case.delay_ms} ms, IPv{case.family}"
        print(f"target missed: {what}", file=sys.stderr)
    return int(ExitCode.FAILED if missed else ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main())
