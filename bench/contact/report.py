"""What was measured, as CSV, as a picture, and as a section of Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from results import quantile, write_rows

from contact.steps import ROUTE, STEPS

FLOOR, BOUND, OURS, NEBULA = "floor", "bound", "wgmap", "nebula"
COLOURS = {FLOOR: "tab:grey", BOUND: "tab:green", OURS: "tab:blue", NEBULA: "tab:orange"}
SLOW_MS = 100.0  # beside the round trips: a contact that needed a repair


@dataclass(frozen=True, slots=True)
class Row:
    """One contact; ``took_ms`` is None where no reply came."""

    delay_ms: float
    family: int
    system: str
    took_ms: float | None
    load: float  # of the machine: processes that ran or wanted to, last minute
    requests: int = 0
    steps: dict[str, float] = field(default_factory=dict)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write one line a contact; steps are in ms, empty where there are none."""
    names = [name for name, _ in (*STEPS, ROUTE)]

    def line(row: Row) -> list[object]:
        took = "" if row.took_ms is None else f"{row.took_ms:.3f}"
        steps = [f"{row.steps[name]:.3f}" if name in row.steps else "" for name in names]
        return [row.delay_ms, row.family, row.system, took, row.load, row.requests, *steps]

    head = ["delay_ms", "family", "system", "took_ms", "load", "requests", *names]
    write_rows(path, head, map(line, rows))


def draw(path: Path, rows: Sequence[Row]) -> None:
    """Write the distributions as PNG: one picture for each delay and family."""
    mpl.use("Agg")
    delays = sorted({row.delay_ms for row in rows})
    families = sorted({row.family for row in rows})
    figure = Figure(figsize=(6 * len(families), 4 * len(delays)), layout="constrained")
    grid = figure.subplots(len(delays), len(families), squeeze=False)
    for line, delay in enumerate(delays):
        for column, family in enumerate(families):
            axes = grid[line][column]
            for system, colour in COLOURS.items():
                took = sorted(_took(rows, delay, family, system))
                if took:
                    share = [(number + 1) / len(took) for number in range(len(took))]
                    axes.step(took, share, where="post", color=colour, label=system)
            axes.set_title(f"{delay:g} ms one way, IPv{family}")
            axes.set_xlabel("first reply after, ms (log)")
            axes.set_ylabel("share of contacts")
            axes.set_xscale("log")
            axes.grid(visible=True, which="both", alpha=0.2)
            axes.legend(loc="lower right")
    figure.savefig(path, dpi=100)


def section(rows: Sequence[Row]) -> str:
    """Write the tables of the section; the text around them is the document's own."""
    delays = sorted({row.delay_ms for row in rows})
    parts = [_overview(rows, delays), *(_breakdown(rows, delay) for delay in delays)]
    return "\n".join(parts)


def _took(rows: Sequence[Row], delay: float, family: int, system: str) -> list[float]:
    return [
        row.took_ms
        for row in rows
        if (row.delay_ms, row.family, row.system) == (delay, family, system)
        and row.took_ms is not None
    ]


def _overview(rows: Sequence[Row], delays: Sequence[float]) -> str:
    lines = [
        "| delay, one way | family | system | contacts | lost | p50 ms | p90 | p99 | max "
        "| p50 to the floor's | repaired |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for delay in delays:
        for family in sorted({row.family for row in rows}):
            for system in COLOURS:
                line = _line(rows, delay, family, system)
                lines += [line] if line else []
    loads = sorted(row.load for row in rows)
    lines += ["", f"Load of the machine meanwhile: {loads[0]:.1f} to {loads[-1]:.1f}, median "
              f"{quantile(loads, 0.5):.1f}."]  # fmt: skip
    return "\n".join(lines)


def _line(rows: Sequence[Row], delay: float, family: int, system: str) -> str | None:
    took = _took(rows, delay, family, system)
    if not took:
        return None
    all_of = [r for r in rows if (r.delay_ms, r.family, r.system) == (delay, family, system)]
    floor = quantile(_took(rows, delay, family, FLOOR), 0.5)
    marks = " | ".join(f"{quantile(took, part):.2f}" for part in (0.5, 0.9, 0.99, 1.0))
    repaired = sum(one > SLOW_MS + 6 * delay for one in took)
    return (
        f"| {delay:g} ms | IPv{family} | {system} | {len(all_of)} | {len(all_of) - len(took)} "
        f"| {marks} | {quantile(took, 0.5) / floor:.2f} | {repaired} |"
    )


def _breakdown(rows: Sequence[Row], delay: float) -> str:
    whole = [row for row in rows if row.delay_ms == delay and row.steps]
    if not whole:
        return ""
    lines = [f"\nSteps at {delay:g} ms, both families ({len(whole)} contacts):\n"]
    lines += ["| step | what | p50 ms | p90 |", "|---|---|---|---|"]
    for name, what in (*STEPS, ROUTE):
        took = [row.steps[name] for row in whole if name in row.steps]
        if not took:
            continue
        lines.append(f"| {name} | {what} | {quantile(took, 0.5):.2f} | {quantile(took, 0.9):.2f} |")
    hedged = sum(row.requests > 1 for row in whole)
    lines.append(f"\nMore than one server was asked in {hedged} of {len(whole)} contacts.")
    return "\n".join(lines)
