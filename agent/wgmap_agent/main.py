"""wgmap-agent: the daemon of a peer, and the commands to look at it."""

import argparse
import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wgmap import __version__, completion, config, log
from wgmap.errors import ExitCode
from wgmap.program import EPILOG, finish
from wgmap.progress import Progress
from wgmap_agent.config import AgentConfig, AgentSection
from wgmap_agent.runner import keys, present, statussocket

CONFIG = "its configuration, as `wgmap peer add` printed it"
EID = "an address inside the overlay"
DEFAULT_SOCKET: Path = AgentSection.model_fields["socket"].default


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    options = parser().parse_args(arguments)
    return finish("wgmap-agent", lambda: options.command(options))


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    # SUPPRESS: an option given before the subcommand is not reset by the subcommand's default.
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--socket", type=Path, help=f"the agent's socket ({DEFAULT_SOCKET})")
    common.add_argument("--json", action="store_true", help="answer in JSON")
    parser = argparse.ArgumentParser(
        prog="wgmap-agent", description="The agent of wgmap.", epilog=EPILOG, parents=[common]
    )
    parser.add_argument("--version", action="version", version=f"wgmap {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, parents=[common], help=text, description=text)
        one.set_defaults(command=function)
        return one

    run = command("run", _run, "Run the agent in the foreground.")
    run.add_argument("--verbose", action="store_true", help="log details")
    run.add_argument("--config", type=Path, required=True, help=CONFIG)
    keygen = command("keygen", _keygen, "Make the keys that are missing; show the public ones.")
    keygen.add_argument("--dir", type=Path, required=True, help="the state directory")
    command("status", _status, "Show servers, peers and counters.")
    resolve = command("resolve", _resolve, "Show where packets to an EID go.")
    resolve.add_argument("eid", metavar="EID", help=EID)
    trace = command("trace", _trace, "Follow an EID step by step, to where it stops.")
    trace.add_argument("eid", metavar="EID", help=EID)
    forget = command("forget", _forget, "Drop the tunnel to an EID; its next packet asks anew.")
    forget.add_argument("eid", metavar="EID", help=EID)
    command("rotate-key", _rotate, "Replace the data key; established flows go on.")
    down = command("down", _down, "Remove everything that the agent made on this machine.")
    down.add_argument("--config", type=Path, required=True, help=CONFIG)
    completion.add_command(commands, parser)
    return parser


def _run(options: argparse.Namespace) -> ExitCode:
    settings = config.load(options.config, AgentConfig)
    log.setup("wgmap-agent", verbose=getattr(options, "verbose", False))
    from wgmap_agent.runner import service  # noqa: PLC0415  # slow to import: not for `status`

    asyncio.run(service.run(settings, options.config))
    return ExitCode.OK


def _down(options: argparse.Namespace) -> ExitCode:
    settings = config.load(options.config, AgentConfig)
    from wgmap_agent.runner import down  # noqa: PLC0415  # as above

    with Progress("wgmap-agent") as progress:
        progress.say("stopping the agent, removing what it made")
        asyncio.run(down.down(settings))
    return ExitCode.OK


def _keygen(options: argparse.Namespace) -> ExitCode:
    names = keys.make(options.dir)
    if _wants_json(options):
        print(json.dumps(names))
    else:
        print("\n".join(f'{name} = "{key}"' for name, key in names.items()))
    return ExitCode.OK


def _status(options: argparse.Namespace) -> ExitCode:
    return _ask(options, {"op": "status"}, present.status)


def _resolve(options: argparse.Namespace) -> ExitCode:
    return _ask(options, {"op": "resolve", "eid": options.eid}, present.resolve)


def _trace(options: argparse.Namespace) -> ExitCode:
    return _ask(options, {"op": "trace", "eid": options.eid}, present.trace)


def _forget(options: argparse.Namespace) -> ExitCode:
    return _ask(options, {"op": "forget", "eid": options.eid}, present.forget)


def _rotate(options: argparse.Namespace) -> ExitCode:
    return _ask(options, {"op": "rotate"}, present.rotate)


def _ask(
    options: argparse.Namespace, question: statussocket.Json, text: present.Presenter
) -> ExitCode:
    socket = getattr(options, "socket", DEFAULT_SOCKET)
    with Progress("wgmap-agent") as progress:
        progress.say(f"waiting for the agent at {socket}")
        answer = statussocket.request(socket, question)
    print(json.dumps(answer) if _wants_json(options) else text(answer))
    return ExitCode.OK if answer.get("found", True) else ExitCode.FAILED


def _wants_json(options: argparse.Namespace) -> bool:
    return getattr(options, "json", False)
