"""The command lines of ``wgmap-chaos run``, ``judge``, ``runs`` and ``gaps``."""

import argparse
import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wgmap import config
from wgmap.errors import WgmapError
from wgmap_chaos.history import file
from wgmap_chaos.judges import all as judges
from wgmap_chaos.judges.verdict import Verdict
from wgmap_chaos.lab.errors import LabError
from wgmap_chaos.report import ledger, writing
from wgmap_chaos.whole import run
from wgmap_chaos.whole.scenario import Scenario

if TYPE_CHECKING:
    Groups = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  # argparse names it no better

MOST_SHOWN = 10  # of one judge


class BrokenPromiseError(WgmapError):
    """A judge found violations, or had nothing to judge."""


def add_commands(groups: "Groups") -> None:
    """Add the commands ``run``, ``judge``, ``runs`` and ``gaps``."""
    whole = groups.add_parser("run", help="chaos over the whole product, and a verdict")
    whole.add_argument("--scenario", type=Path, help="a TOML file; default: all faults")
    for name, kind in (("seed", int), ("servers", int), ("agents", int), ("minutes", float)):
        whole.add_argument(f"--{name}", type=kind, help="instead of the scenario's")
    whole.add_argument("--out", type=Path, help="default: .chaos/SEED-SERVERSxAGENTS")
    whole.set_defaults(run=_run)

    judge = groups.add_parser("judge", help="judge a saved history again")
    judge.add_argument("history", type=Path)
    judge.add_argument("--json", action="store_true")
    judge.add_argument("--out", type=Path, help="write the report there, too")
    judge.set_defaults(run=_judge)

    runs = groups.add_parser("runs", help="what was run, and the verdicts, a line each")
    runs.add_argument("entries", type=Path, nargs="+", metavar="ENTRY")
    runs.set_defaults(run=_runs)

    gaps = groups.add_parser("gaps", help="how long nothing worked, over many runs")
    gaps.add_argument("entries", type=Path, nargs="+", metavar="ENTRY")
    gaps.set_defaults(run=_gaps)


def _run(options: argparse.Namespace) -> None:
    if os.geteuid():
        raise LabError("chaos wants root: network namespaces and WireGuard interfaces")
    scenario = _scenario(options)
    sizes = scenario.run
    out = options.out or Path(f".chaos/{sizes.seed}-{sizes.servers}x{sizes.agents}")
    try:
        history = file.read(run.run(scenario, out, _command(options, scenario)))
    except WgmapError as error:
        _note(out, str(error))
        raise
    verdicts = judges.judge(history)
    writing.write(history, verdicts, out)
    print(f"{text(verdicts)}\nsee {out / writing.PAGE}")
    _require_held(verdicts)


def _note(out: Path, why: str) -> None:
    """Keep that a run broke off, if it had begun."""
    history = out / file.NAME
    if history.exists() and (begun := file.read(history)).runs:
        ledger.write(out / ledger.NAME, ledger.entry(begun, (), why.splitlines()[0]))


def _scenario(options: argparse.Namespace) -> Scenario:
    scenario = config.load(options.scenario, Scenario) if options.scenario else Scenario()
    names = ("seed", "servers", "agents", "minutes")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    changed = {**scenario.model_dump(), "run": {**scenario.run.model_dump(), **given}}
    return Scenario.model_validate(changed)


def _command(options: argparse.Namespace, scenario: Scenario) -> str:
    """Return what does the same again."""
    argv = ["wgmap-chaos", "run"]
    if options.scenario:
        argv += ["--scenario", str(options.scenario)]
    for name in ("seed", "servers", "agents", "minutes"):
        argv += [f"--{name}", f"{getattr(scenario.run, name):g}"]
    return shlex.join(argv)


def _judge(options: argparse.Namespace) -> None:
    history = file.read(options.history)
    verdicts = judges.judge(history)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        writing.write(history, verdicts, options.out)
    print(_as_json(verdicts) if options.json else text(verdicts))
    _require_held(verdicts)


def _gaps(options: argparse.Namespace) -> None:
    print(writing.gap_table(ledger.read(options.entries)))


def _runs(options: argparse.Namespace) -> None:
    print(writing.run_table(ledger.read(options.entries)))


def _require_held(verdicts: Sequence[Verdict]) -> None:
    failed = [one.judge for one in verdicts if not one.held]
    if failed:
        raise BrokenPromiseError(f"not held: {', '.join(failed)}")


def _as_json(verdicts: Sequence[Verdict]) -> str:
    shown: list[dict[str, Any]] = [{**asdict(one), "held": one.held} for one in verdicts]
    return json.dumps(shown, indent=2)


def text(verdicts: Sequence[Verdict]) -> str:
    """Say in lines what the judges found."""
    lines = []
    for one in verdicts:
        lines.append(f"{one.judge:16} {one.word:10} {one.looked_at} {one.what}")
        lines += [f"    {broken}" for broken in one.broken[:MOST_SHOWN]]
        if len(one.broken) > MOST_SHOWN:
            lines.append(f"    and {len(one.broken) - MOST_SHOWN} more")
    return "\n".join(lines)
