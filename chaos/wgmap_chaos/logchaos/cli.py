"""The command line of ``wgmap-chaos log``."""

import argparse
import json
import os
from typing import TYPE_CHECKING

from wgmap.errors import WgmapError
from wgmap_chaos.lab.errors import LabError
from wgmap_chaos.logchaos.run import run
from wgmap_chaos.logchaos.server import PLANTS

if TYPE_CHECKING:
    Groups = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  # argparse names it no better

MAX_SERVERS = 9


def add_commands(groups: "Groups") -> None:
    """Add the command ``log``."""
    log = groups.add_parser("log", help="chaos for the replicated log, and a verdict")
    log.add_argument("--servers", type=int, choices=range(3, MAX_SERVERS + 1), default=3)
    log.add_argument("--minutes", type=float, default=1.0)
    log.add_argument("--seed", type=int, default=1)
    log.add_argument(
        "--plant", choices=PLANTS, default="none", help="break a promise, to test the judge"
    )
    log.add_argument("--json", action="store_true")
    log.set_defaults(run=_run)


class BrokenPromiseError(WgmapError):
    """The judge found violations."""


def _run(options: argparse.Namespace) -> None:
    if os.geteuid():
        raise LabError("chaos wants root: network namespaces")
    report = run(options.servers, options.seed, options.minutes * 60, options.plant)
    print(json.dumps(report.data()) if options.json else report.text())
    if report.verdict.broken:
        raise BrokenPromiseError(f"{report.verdict.broken} broken promises")
