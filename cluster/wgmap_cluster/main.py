"""wgmap-server: the daemon of a map server, its keys and its state."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wgmap import __version__, completion
from wgmap.errors import ExitCode
from wgmap.program import EPILOG, finish
from wgmap.progress import Progress
from wgmap_cluster.supervisor import keys

CONFIG = "its configuration (TOML)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    options = parser().parse_args(arguments)
    return finish("wgmap-server", lambda: options.command(options))


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    # SUPPRESS: an option given before the subcommand is not reset by the subcommand's default.
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--json", action="store_true", help="answer in JSON")
    parser = argparse.ArgumentParser(
        prog="wgmap-server", description="A map server of wgmap.", epilog=EPILOG, parents=[common]
    )
    parser.add_argument("--version", action="version", version=f"wgmap {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, parents=[common], help=text, description=text)
        one.set_defaults(command=function)
        return one

    run = command("run", _run, "Run the server in the foreground.")
    run.add_argument("--config", type=Path, required=True, help=CONFIG)
    run.add_argument("--verbose", action="store_true", help="log details")
    keygen = command("keygen", _keygen, "Make the keys that are missing; show the public ones.")
    keygen.add_argument("--dir", type=Path, required=True, help="the state directory")
    again = command("reload", _reload, "Let a running server take over its configuration.")
    again.add_argument("--config", type=Path, required=True, help=CONFIG)
    check = command("check-state", _check_state, "Check a stopped server's state directory.")
    check.add_argument("dir", type=Path, metavar="DIR", help="the state directory")
    completion.add_command(commands, parser)
    return parser


def _run(options: argparse.Namespace) -> ExitCode:
    from wgmap_cluster.supervisor import supervisor  # noqa: PLC0415  # slow to import

    supervisor.run(options.config, verbose=options.verbose)
    return ExitCode.OK


def _reload(options: argparse.Namespace) -> ExitCode:
    from wgmap_cluster.supervisor.reload import reload  # noqa: PLC0415  # as above

    with Progress("wgmap-server") as progress:
        progress.say("waiting until the server has taken it over")
        reload(options.config)
    return ExitCode.OK


def _keygen(options: argparse.Namespace) -> ExitCode:
    names = keys.make(options.dir)
    if _wants_json(options):
        print(json.dumps(names))
    else:
        print("\n".join(f'{name} = "{key}"' for name, key in names.items()))
    return ExitCode.OK


def _check_state(options: argparse.Namespace) -> ExitCode:
    from wgmap_cluster.supervisor.state import check  # noqa: PLC0415  # slow to import

    with Progress("wgmap-server") as progress:
        progress.say(f"reading {options.dir}")
        report = check(options.dir)
    print(json.dumps(report.values) if _wants_json(options) else report.text)
    return ExitCode.OK if report.sound else ExitCode.FAILED


def _wants_json(options: argparse.Namespace) -> bool:
    return getattr(options, "json", False)
