"""Servers that die: what first contacts feel of it, and what is left without any server.

Exit code 0 only if nothing was lost and every bound held. Wants root. Prints Markdown, and writes
CSV and PNG.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import results
from matplotlib.figure import Figure

from wgmap.errors import ExitCode, WgmapError
from wgmap_chaos.failover.faults import FAULTS
from wgmap_chaos.failover.ground import Alone, Ground, Measured
from wgmap_chaos.lab import commands
from wgmap_chaos.lab.relay import Quality
from wgmap_chaos.priority import favour, of_lab

# A detour needs the relay: without one at 0 ms, the way itself would be another one afterwards.
RELAYED_MS = 0.01
FLOW_S = 13.0
UNANSWERED_S = 10.0  # the agents' default


@dataclass
class Found:
    """All that was measured so far."""

    measured: list[Measured] = field(default_factory=list)
    alone: list[Alone] = field(default_factory=list)

    @property
    def held(self) -> bool:
        """Say whether what is promised was kept."""
        grew = any(not one.held for one in self.measured if one.fault != "two killed")
        lost = any(one.lost for one in self.measured) or any(one.flow_lost for one in self.alone)
        refused = all(one.refused_after_s is not None for one in self.alone)
        return refused and not grew and not lost


def measure(ground: Ground, options: argparse.Namespace, found: Found) -> None:
    """Let everything befall; what was measured is written after each case."""
    for delay in options.delay:
        for fault in FAULTS:
            underlay = max(delay, RELAYED_MS) if fault == "slow" else delay
            _prepare(ground, underlay)
            _keep(options, found, ground.measure(fault, delay, options.contacts))
        _prepare(ground, delay)
        _keep(options, found, ground.measure_two(delay, options.contacts))
    commands.set_quality(ground.directory, 0.0, 0.0)
    for family in options.families:
        found.alone.append(asyncio.run(ground.without_any(family, FLOW_S, UNANSWERED_S)))


def _prepare(ground: Ground, delay_ms: float) -> None:
    commands.set_quality(ground.directory, delay_ms, 0.0)
    favour([os.getpid(), *of_lab(ground.lab)])


def _keep(options: argparse.Namespace, found: Found, one: Measured) -> None:
    found.measured.append(one)
    print(table([one]).splitlines()[-1], file=sys.stderr, flush=True)
    results.keep(options, found, write_csv)


def text(found: Found, contacts: int) -> str:
    """Write everything as Markdown."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    conditions = (
        f"{contacts} first contacts before each fault and as many from its first moment on, IPv4"
        " and IPv6 in turns, between agents over real WireGuard in network namespaces of one"
        f" machine with {os.cpu_count()} processors, with one priority above other work (load at"
        f" the end: {load})."
    )
    return "\n\n".join([conditions, table(found.measured), without_any(found.alone)])


def table(measured: Sequence[Measured]) -> str:
    """Write the first contacts before and after as a Markdown table."""
    head = (
        "the preferred server is | one-way delay | it led | median before | after | growth |"
        " hedge delay | worst before | after | lost | heard, as the status says"
    )
    return results.markdown(head, map(_cells, measured))


def _cells(one: Measured) -> tuple[str, ...]:
    heard = "" if one.heard_s is None else f"{one.heard_s[0]:.1f} s, then {one.heard_s[1]:.1f} s"
    return (
        one.fault if one.held else f"{one.fault} **(beyond)**",
        f"{one.delay_ms:g} ms",
        "yes" if one.led else "no",
        *(_ms(value) for value in (one.median_ms[0], one.median_ms[1], one.growth_ms)),
        _ms(one.hedge_ms),
        *(_ms(value) for value in one.worst_ms),
        f"{one.lost} of {len(one.before) + len(one.after)}",
        heard,
    )


def without_any(alone: Sequence[Alone]) -> str:
    """Write what went on without any server as a Markdown table."""
    head = (
        "all three killed | established flow, 100 packets a second | a new contact is refused"
        " (ICMP) | configured"
    )
    rows = (
        (
            f"IPv{one.family}",
            f"{one.flow_lost} of {one.flow_sent} lost",
            "never" if one.refused_after_s is None else f"after {one.refused_after_s:.1f} s",
            f"{one.configured_s:g} s",
        )
        for one in alone
    )
    return results.markdown(head, rows)


def write_csv(path: Path, found: Found) -> None:
    """Write one line a first contact, in their order; empty: no reply came."""
    rows = (
        [one.fault, one.delay_ms, int(one.led), f"{one.hedge_ms:.1f}", when,
         "" if took is None else f"{took:.2f}"]
        for one in found.measured
        for when, contacts in (("before", one.before), ("after", one.after))
        for took in contacts
    )  # fmt: skip
    results.write_rows(path, ["fault", "delay_ms", "led", "hedge_ms", "when", "took_ms"], rows)


def draw(path: Path, found: Found) -> None:
    """Write the picture as PNG: every contact a point, in the order in which they were made."""
    measured = found.measured
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
    figure.savefig(path, dpi=90)


def _ms(value: float) -> str:
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"


def main() -> int:
    """Bring a lab up, measure, write the results, take the lab down."""
    parser = results.parser(__doc__, "failover")
    parser.add_argument("--contacts", type=int, default=20, help="before each fault, and after")
    parser.add_argument("--delay", type=float, nargs="+", default=[0.0, 20.0], metavar="MS")
    parser.add_argument("--short", action="store_true", help="few contacts, 20 ms: does it work?")
    parser.set_defaults(families=(0, 1))
    options = parser.parse_args()
    if options.short:
        options.contacts, options.delay, options.families = 4, [20.0], (0,)
    found = Found()
    with tempfile.TemporaryDirectory(prefix="wgmap-failover-") as name:
        directory = Path(name)
        try:
            commands.up(directory, servers=3, agents=3, quality=Quality())
            measure(Ground(directory), options, found)
        except WgmapError as error:
            print(f"the measurement broke off: {error}", file=sys.stderr)
            return error.exit_code
        finally:
            commands.down(directory)
    results.publish(options, text(found, options.contacts), found, write_csv, draw)
    return int(ExitCode.OK if found.held else ExitCode.FAILED)


if __name__ == "__main__":
    sys.exit(main())
