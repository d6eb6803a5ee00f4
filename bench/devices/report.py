"""What was measured of a server with many control tunnels, as tables and a picture."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from measured import Value, pick

PROCESSES = ("replica", "responder", "wireguard-go", "supervisor")
STARTS = ("first answer", "takes peers", "peers on the device", "handshakes")
SAID = ("probes", "registers", "keepalives")


def tables(values: Sequence[Value]) -> str:
    """Write all tables."""
    parts = (_steady(values), _said(values), _moves(values), _starts(values), _devices(values))
    return "\n\n".join(part for part in parts if part)


def _steady(values: Sequence[Value]) -> str:
    lines = [
        "| enrolled peers, all there | process | processor | for 1,000 peers | memory |",
        "|---|---|---|---|---|",
    ]
    for peers in _sizes(values, "steady"):
        for process in PROCESSES:
            cpu, memory = (
                _one(values, phase="steady", peers=peers, process=process, figure=figure)
                for figure in ("cpu", "memory")
            )
            lines.append(
                f"| {peers:,} | {process} | {cpu:.2f} % | {1000 * cpu / peers:.2f} % "
                f"| {memory:.0f} MB |"
            )
    return "\n".join(lines)


def _said(values: Sequence[Value]) -> str:
    lines = [
        "| peers | probes a second | answered | registers a second | answered "
        "| keepalives a second | messages a minute of each | of a real agent | enrolled a second "
        "| first registers a second |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for peers in _sizes(values, "steady"):
        of = {"phase": "steady", "peers": peers}
        said = {kind: _one(values, **of, process="all", figure=kind) for kind in SAID}
        probes, registers = (
            _one(values, **of, process="all", figure=kind) for kind in ("answers", "registered")
        )
        lines.append(
            f"| {peers:,} | {said['probes']:.1f} | {probes:.1f} | {said['registers']:.1f} "
            f"| {registers:.1f} | {said['keepalives']:.1f} "
            f"| {_one(values, **of, process='a member', figure='packets'):.1f} "
            f"| {_one(values, **of, process='a real agent', figure='packets'):.1f} "
            f"| {_one(values, phase='enrol', peers=peers, figure='rate'):,.0f} "
            f"| {_one(values, phase='first registers', peers=peers, figure='rate'):,.0f} |"
        )
    return "\n".join(lines)


def _moves(values: Sequence[Value]) -> str:
    lines = [
        "| peers | they move | acknowledged after: p50 | p99 | longest | a second | lost |",
        "|---|---|---|---|---|---|---|",
    ]
    for rate in pick(values, figure="rate"):
        if rate.phase.startswith("moves"):
            of = {"phase": rate.phase, "peers": rate.peers, "process": "all"}
            times = " | ".join(
                f"{_one(values, **of, figure=part):.1f} ms" for part in ("p50", "p99", "max")
            )
            lost = _one(values, **of, figure="lost")
            how = rate.phase.removeprefix("moves, ")
            lines.append(f"| {rate.peers:,} | {how} | {times} | {rate.value:,.0f} | {lost:.0f} |")
    return "\n".join(lines)


def _starts(values: Sequence[Value]) -> str:
    lines = [
        "| peers | start | " + " | ".join(STARTS) + " | replica | responder | wireguard-go |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for phase in ("restart", "reboot"):
        for peers in _sizes(values, phase):
            of = {"phase": phase, "peers": peers}
            times = " | ".join(
                f"{_one(values, **of, process='all', figure=figure):.2f} s" for figure in STARTS
            )
            costs = " | ".join(
                f"{_one(values, **of, process=process, figure='cpu until then'):.2f} s"
                if (phase, process) != ("restart", "wireguard-go")
                else "-"
                for process in PROCESSES[:3]
            )
            lines.append(f"| {peers:,} | {phase} | {times} | {costs} |")
    return "\n".join(lines)


def _devices(values: Sequence[Value]) -> str:
    if not pick(values, phase="device"):
        return ""
    lines = [
        "| peers on one device, in the virtual machine | the kernel's to the one in user space: "
        "added | processor | read | processor | memory |",
        "|---|---|---|---|---|---|",
    ]
    for peers in _sizes(values, "device"):
        ratios = " | ".join(
            f"{_ratio(values, peers, figure):.2f}"
            for figure in ("add_s", "add_cpu_s", "read_s", "read_cpu_s", "bytes")
        )
        lines.append(f"| {peers:,} | {ratios} |")
    return "\n".join(lines)


def _ratio(values: Sequence[Value], peers: int, figure: str) -> float:
    kernel, user = (
        _one(values, phase="device", peers=peers, process=backend, figure=figure)
        for backend in ("kernel", "userspace")
    )
    return kernel / user


def _sizes(values: Sequence[Value], phase: str) -> list[int]:
    return sorted({one.peers for one in pick(values, phase=phase)})


def _one(values: Sequence[Value], **wanted: object) -> float:
    found = pick(values, **wanted)
    return found[0].value if found else float("nan")


def draw(path: Path, values: Sequence[Value]) -> None:
    """Write processor, memory and start over the number of peers as PNG."""
    figure = Figure(figsize=(15, 4.5), layout="constrained")
    cpu, memory, start = figure.subplots(1, 3)
    sizes = _sizes(values, "steady")
    for process in PROCESSES:
        for axes, what in ((cpu, "cpu"), (memory, "memory")):
            of = {"phase": "steady", "process": process, "figure": what}
            axes.plot(sizes, [_one(values, peers=n, **of) for n in sizes], "o-", label=process)
    for phase, style in (("restart", "o-"), ("reboot", "s--")):
        for name in STARTS:
            of = {"phase": phase, "process": "all", "figure": name}
            took = [_one(values, peers=n, **of) for n in sizes]
            start.plot(sizes, took, style, label=f"{phase}: {name}")
    titles = ("processor, % of one", "resident memory, MB", "seconds after the start")
    for axes, title in zip((cpu, memory, start), titles, strict=True):
        axes.set_title(title, fontsize="medium")
        axes.set_xlabel("enrolled peers, all there")
        axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.2)
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=100)
