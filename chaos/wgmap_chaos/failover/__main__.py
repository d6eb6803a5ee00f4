"""``make bench-failover``: exit code 0 only if nothing was lost and every bound held."""

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path

from wgmap.errors import ExitCode, WgmapError
from wgmap_chaos.failover import report
from wgmap_chaos.failover.faults import FAULTS
from wgmap_chaos.failover.ground import Alone, Ground, Measured
from wgmap_chaos.lab import commands
from wgmap_chaos.lab.relay import Quality
from wgmap_chaos.priority import favour, of_lab

DELAYS_MS = (0.0, 20.0)
# A detour needs the relay: without one at 0 ms, the way itself would be another one afterwards.
RELAYED_MS = 0.01
FLOW_S = 13.0
UNANSWERED_S = 10.0  # the agents' default


def main() -> int:
    """Bring a lab up, measure, write the report, take the lab down."""
    parser = argparse.ArgumentParser(prog="python -m wgmap_chaos.failover", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/evaluation"))
    parser.add_argument("--contacts", type=int, default=20, help="before each fault, and after")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wgmap-failover-") as name:
        directory = Path(name)
        try:
            commands.up(directory, servers=3, agents=3, quality=Quality())
            measured, alone = _measure(Ground(directory), options.contacts)
        except WgmapError as error:
            print(f"the measurement broke off: {error}", file=sys.stderr)
            return error.exit_code
        finally:
            commands.down(directory)
    report.draw(measured, options.out / "failover.png")
    report.write_csv(measured, options.out / "failover.csv")
    report.write(options.out / "failover.md", measured, alone, _conditions(options.contacts))
    held = all(one.held for one in measured if one.fault != "two killed")
    none_lost = not any(one.lost for one in measured) and not any(one.flow_lost for one in alone)
    refused = all(one.refused_after_s is not None for one in alone)
    return ExitCode.OK if held and none_lost and refused else ExitCode.FAILED


def _measure(ground: Ground, contacts: int) -> tuple[list[Measured], list[Alone]]:
    measured: list[Measured] = []
    for delay in DELAYS_MS:
        for fault in FAULTS:
            underlay = max(delay, RELAYED_MS) if fault == "slow" else delay
            commands.set_quality(ground.directory, underlay, 0.0)
            favour([os.getpid(), *of_lab(ground.lab)])
            measured.append(_shown(ground.measure(fault, delay, contacts)))
        commands.set_quality(ground.directory, delay, 0.0)
        favour([os.getpid(), *of_lab(ground.lab)])
        measured.append(_shown(ground.measure_two(delay, contacts)))
    commands.set_quality(ground.directory, 0.0, 0.0)
    alone = [asyncio.run(ground.without_any(family, FLOW_S, UNANSWERED_S)) for family in (0, 1)]
    print(report.without_any(alone), flush=True)
    return measured, alone


def _shown(one: Measured) -> Measured:
    print(report.table([one]).splitlines()[-1], flush=True)
    return one


def _conditions(contacts: int) -> str:
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"What `make bench-failover` saw: {contacts} first contacts before each fault and as many"
        " from its first moment on, IPv4 and IPv6 in turns, between agents over real WireGuard in"
        f" network namespaces of one machine with {os.cpu_count()} processors, with one priority"
        f" above other work (load at the end: {load})."
    )


if __name__ == "__main__":
    sys.exit(main())
