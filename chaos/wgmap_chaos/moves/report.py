"""What was measured, as a table and a picture."""

import csv
import statistics
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from wgmap_chaos.moves.scenarios import Measured, Scenario

MEDIAN_LIMIT_S = 0.3


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


def table(cases: list[Case], window_s: float) -> str:
    """Write a Markdown table; what did not come back within the window is ``> window``."""
    lines = [
        "| what happens | one-way delay | flow | wgmap: median | worst | WireGuard alone: median |"
        " worst | trials |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        plain = case.plain
        cells = (
            case.scenario.title,
            f"{case.delay_ms} ms",
            f"IPv{case.family}",
            _time(statistics.median(case.wgmap), window_s),
            _time(case.wgmap[-1], window_s),
            _time(statistics.median(plain), window_s) if plain else "",
            _time(plain[-1], window_s) if plain else "",
            str(len(case.trials)),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_csv(cases: list[Case], path: Path) -> None:
    """Write one line a trial: how long (seconds) each flow was silent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["scenario", "delay_ms", "family", "wgmap_s", "plain_s"])
        for case in cases:
            head = [case.scenario.title, case.delay_ms, case.family]
            for one in case.trials:
                plain = "" if one.plain_s is None else f"{one.plain_s:.4f}"
                writer.writerow([*head, f"{one.wgmap_s:.4f}", plain])


def _time(seconds: float, window_s: float) -> str:
    return f"> {window_s:.0f} s" if seconds >= window_s - 0.1 else f"{seconds * 1e3:.0f} ms"


def draw(cases: list[Case], path: Path) -> None:
    """Write the picture as PNG: every trial a point, one row for each case."""
    mpl.use("Agg")
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
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
