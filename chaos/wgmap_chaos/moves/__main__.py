"""``make bench-moves``: exit code 0 only if every target was met."""

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path

from wgmap.errors import ExitCode
from wgmap_chaos.moves.plain import PlainTunnel
from wgmap_chaos.moves.report import Case, draw, table, write_csv
from wgmap_chaos.moves.scenarios import SCENARIOS, Ground
from wgmap_chaos.programs import run

DELAYS_MS = [0, 20]
WINDOW_S = 3.0
MARK = "<!-- measured: everything below is written by make bench-moves -->"


def main() -> int:
    """Bring a lab up, measure, write the table and the picture, take the lab down."""
    parser = argparse.ArgumentParser(prog="python -m wgmap_chaos.moves", description=__doc__)
    parser.add_argument("--trials", type=int, default=5, help="of each case")
    parser.add_argument("--delay", type=int, nargs="+", default=DELAYS_MS, help="one way, in ms")
    parser.add_argument("--only", default="", help="scenarios whose title contains this")
    parser.add_argument("--out", type=Path, default=Path("docs/evaluation"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wgmap-moves-") as directory:
        try:
            run("wgmap-chaos", "lab", "up", "--agents", "2", "--dir", directory, timeout_s=600)
            cases = asyncio.run(_measure(Path(directory), options))
        finally:
            run("wgmap-chaos", "lab", "down", "--dir", directory, timeout_s=300)
    missed = [case for case in cases if not case.held]
    for case in missed:
        print(f"target missed: {case.scenario.title}, {case.delay_ms} ms, IPv{case.family}")
    return int(ExitCode.FAILED if missed else ExitCode.OK)


async def _measure(directory: Path, options: argparse.Namespace) -> list[Case]:
    ground = Ground(directory, window_s=WINDOW_S, favoured=True)
    cases: list[Case] = []
    async with PlainTunnel(ground.one, ground.two) as plain:
        for delay in options.delay:
            run("wgmap-chaos", "lab", "set", "--delay", str(delay), "--dir", str(directory))
            for scenario in SCENARIOS:
                if options.only not in scenario.title:
                    continue
                for family in (0, 1):
                    case = Case(scenario, delay, (4, 6)[family])
                    cases.append(case)
                    for _ in range(options.trials):
                        case.trials.append(await ground.trial(scenario, family, plain))
                    print(table([case], WINDOW_S).splitlines()[-1], flush=True)
                    _write(cases, options.out)  # whatever happens then, this is measured
    return cases


def _write(cases: list[Case], out: Path) -> None:
    document = out / "moves.md"
    before = document.read_text().partition(MARK)[0] if document.exists() else ""
    draw(cases, out / "moves.png")
    write_csv(cases, out / "moves.csv")
    text = f"{before}{MARK}\n\n{_conditions()}\n\n{table(cases, WINDOW_S)}\n"
    text += "![every trial](moves.png)\n\nAll trials: [moves.csv](moves.csv).\n"
    document.write_text(text)


def _conditions() -> str:
    load = os.getloadavg()[1]
    return (
        "Three servers, two agents, wireguard-go in network namespaces of one machine with"
        f" {os.cpu_count()} processors; its load over the last five minutes was {load:.0f}, and"
        " what is compared has one priority above other work."
    )


if __name__ == "__main__":
    sys.exit(main())
