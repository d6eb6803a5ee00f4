"""What was measured, as tables and a picture."""

import csv
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from wgmap_chaos.failover.ground import Alone, Measured

MARK = "<!-- measured: everything below is written by make bench-failover -->"


def write(
    path: Path, measured: Sequence[Measured], alone: Sequence[Alone], conditions: str
) -> None:
    """Put the tables into the document, behind its text; raises OSError."""
    before = path.read_text().partition(MARK)[0] if path.exists() else ""
    text = f"{conditions}\n\n{table(measured)}\n{without_any(alone)}\n![contacts](failover.png)\n\n"
    text += "All contacts: [failover.csv](failover.csv).\n"
    path.write_text(f"{before}{MARK}\n\n{text}")


def table(measured: Sequence[Measured]) -> str:
    """Write the first contacts before and after as a Markdown table."""
    lines = [
        "| the preferred server is | one-way delay | it led | median before | after | growth |"
        " hedge delay | worst before | after | lost | heard, as the status says |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in measured:
        heard = (
            "" if one.heard_s is None else f"{one.heard_s[0]:.1f} s, then {one.heard_s[1]:.1f} s"
        )
        cells = (
            one.fault,
            f"{one.delay_ms:g} ms",
            "yes" if one.led else "no",
            *(_ms(value) for value in (one.median_ms[0], one.median_ms[1], one.growth_ms)),
            _ms(one.hedge_ms),
            *(_ms(value) for value in one.worst_ms),
            f"{one.lost} of {len(one.before) + len(one.after)}",
            heard,
        )
        mark = "" if one.held else " **(beyond)**"
        lines.append(f"| {' | '.join(cells)}{mark} |")
    return "\n".join(lines) + "\n"


def without_any(alone: Sequence[Alone]) -> str:
    """Write what went on without any server as a Markdown table."""
    lines = [
        "| all three killed | established flow, 100 packets a second | a new contact is refused"
        " (ICMP) | configured |",
        "|---|---|---|---|",
    ]
    for one in alone:
        refused = "never" if one.refused_after_s is None else f"after {one.refused_after_s:.1f} s"
        flow = f"{one.flow_lost} of {one.flow_sent} lost"
        lines.append(f"| IPv{one.family} | {flow} | {refused} | {one.configured_s:g} s |")
    return "\n".join(lines) + "\n"


def write_csv(measured: Sequence[Measured], path: Path) -> None:
    """Write one line a first contact, in their order; empty: no reply came."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["fault", "delay_ms", "led", "hedge_ms", "when", "took_ms"])
        for one in measured:
            head = [one.fault, one.delay_ms, int(one.led), f"{one.hedge_ms:.1f}"]
            for when, took in (("before", one.before), ("after", one.after)):
                values = ("" if value is None else f"{value:.2f}" for value in took)
                writer.writerows([*head, when, value] for value in values)


def draw(measured: Sequence[Measured], path: Path) -> None:
    """Write the picture as PNG: every contact a point, in the order in which they were made."""
    mpl.use("Agg")
    figure = Figure(figsize=(11, 2.1 * len(measured)), layout="constrained")
    for axes, one in zip(
        figure.subplots(len(measured), 1, squeeze=False)[:, 0], measured, strict=True
    ):
        contacts = [*one.before, *one.after]
        known = [(number, value) for number, value in enumerate(contacts) if value is not None]
        lost = [number for number, value in enumerate(contacts) if value is None]
        axes.plot([n for n, _ in known], [value for _, value in known], "o", markersize=4)
        for number in lost:
            axes.axvline(number, color="tab:red")
        axes.axvline(len(one.before) - 0.5, color="tab:gray", linewidth=1)
        median, hedge = one.median_ms[0], one.hedge_ms
        axes.axhspan(median, median + hedge, color="tab:green", alpha=0.15)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("ms")
        axes.set_title(f"{one.fault}, {one.delay_ms:g} ms one way", fontsize=9, loc="left")
        axes.grid(visible=True, alpha=0.2)
    figure.suptitle(
        "First contacts before and after (grey line); green: the median and one hedge delay more"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)


def _ms(value: float) -> str:
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"
