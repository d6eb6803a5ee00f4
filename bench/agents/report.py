"""What was measured of one agent, as tables and a picture."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from measured import Value, pick

DEVICE, HAND = "wireguard-go, data", "wireguard-go, by hand"
STEADY = (
    ("no peers", "agent", "agent, no peers"),
    ("active", "agent", "agent"),
    ("no peers", DEVICE, "its wireguard-go, no peers"),
    ("active", DEVICE, "its wireguard-go"),
    ("agent ended", DEVICE, "its wireguard-go, the agent ended"),
    ("by hand", HAND, "wireguard-go by hand"),
)


def tables(values: Sequence[Value]) -> str:
    """Write all tables."""
    return "\n\n".join((_steady(values), _contacts(values), _scan(values), _restart(values)))


def _steady(values: Sequence[Value]) -> str:
    lines = ["| active peers | process | processor | memory | of the packets unanswered |",
             "|---|---|---|---|---|"]  # fmt: skip
    for phase, process, title in STEADY:
        for one in pick(values, phase=phase, process=process, figure="cpu"):
            of = {"phase": phase, "peers": one.peers}
            memory = _one(values, **of, process=process, figure="memory")
            sent = _one(values, **of, process="all", figure="packets")
            lost = _one(values, **of, process="all", figure="unanswered")
            lines.append(
                f"| {one.peers:,} | {title} | {one.value:.2f} % | {memory:.0f} MB "
                f"| {lost:.0f} of {sent:.0f} |"
            )
    return "\n".join(lines)


def _contacts(values: Sequence[Value]) -> str:
    lines = [
        "| first contacts | peers there | out at a time | a second | p50 ms | p90 | p99 | max "
        "| lost | agent: processor each | its wireguard-go | responders | crowd |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for rate in pick(values, process="all", figure="rate"):
        of = {"phase": rate.phase, "peers": rate.peers, "window": rate.window}
        times = " | ".join(
            f"{_one(values, **of, process='all', figure=f'p{part}'):.1f}"
            for part in ("50", "90", "99", "100")
        )
        lost = _one(values, **of, process="all", figure="lost")
        device = HAND if rate.phase == "by hand" else DEVICE
        costs = " | ".join(
            _us(values, of, process) for process in ("agent", device, "responders", "crowd")
        )
        lines.append(
            f"| {rate.phase} | {rate.peers:,} | {rate.window} | {rate.value:.0f} | {times} "
            f"| {lost:.0f} | {costs} |"
        )
    return "\n".join(lines)


def _us(values: Sequence[Value], of: dict[str, object], process: str) -> str:
    found = pick(values, **of, process=process, figure="cpu each")
    return f"{found[0].value:,.0f} us" if found else "-"


def _scan(values: Sequence[Value]) -> str:
    lines = ["| scanned | process | processor, an address | memory grew by |", "|---|---|---|---|"]
    for one in pick(values, phase="scan", figure="cpu an address"):
        grown = _one(values, phase="scan", process=one.process, figure="growth")
        lines.append(
            f"| {_one(values, phase='scan', process='all', figure='addresses'):,.0f} "
            f"| {one.process} | {one.value:.0f} us | {grown:.1f} MB |"
        )
    return "\n".join(lines)


def _restart(values: Sequence[Value]) -> str:
    return "\n".join(
        f"Agent started beside {one.peers:,} peers on its device: {one.figure} "
        f"after {one.value:.1f} s."
        for one in pick(values, phase="restart")
    )


def _one(values: Sequence[Value], **wanted: object) -> float:
    found = pick(values, **wanted)
    return found[0].value if found else float("nan")


def draw(path: Path, values: Sequence[Value]) -> None:
    """Write processor and memory over the peers, and the contacts over the window, as PNG."""
    figure = Figure(figsize=(15, 4.5), layout="constrained")
    cpu, memory, rate = figure.subplots(1, 3)
    for process in ("agent", DEVICE, "wireguard-go, control"):
        for axes, what in ((cpu, "cpu"), (memory, "memory")):
            found = pick(values, phase="active", process=process, figure=what)
            axes.plot(
                [one.peers for one in found], [one.value for one in found], "o-", label=process
            )
    for axes, what in ((cpu, "cpu"), (memory, "memory")):
        for one in pick(values, phase="by hand", process=HAND, figure=what):
            axes.plot([one.peers], [one.value], "s", color="tab:grey", label=HAND)
        axes.set_xlabel("active peers")
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.2)
        axes.legend()
    cpu.set_title("processor, % of one", fontsize="medium")
    memory.set_title("resident memory, MB", fontsize="medium")
    for phase in ("again", "by hand"):
        found = pick(values, phase=phase, process="all", figure="rate")
        rate.plot([one.window for one in found], [one.value for one in found], "o-", label=phase)
    rate.set_xscale("log", base=2)
    rate.set_xlabel("first contacts out at a time")
    rate.set_title("first contacts a second", fontsize="medium")
    rate.set_ylim(bottom=0)
    rate.grid(visible=True, alpha=0.2)
    rate.legend()
    figure.savefig(path, dpi=100)
