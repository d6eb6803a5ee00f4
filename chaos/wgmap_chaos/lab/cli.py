"""The command line of ``wgmap-chaos lab``."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from wgmap.progress import Progress
from wgmap_chaos.lab import commands, topology
from wgmap_chaos.lab.inventory import Inventory
from wgmap_chaos.lab.relay import MAX_DELAY_MS, Quality

T = TypeVar("T")

if TYPE_CHECKING:
    Groups = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  # argparse names it no better


def add_commands(groups: "Groups") -> None:
    """Add the group ``lab``."""
    # Before and after the command: the later one wins, none means the default.
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--dir", type=Path, default=argparse.SUPPRESS, help="default: .lab")
    common.add_argument("--json", action="store_true", default=argparse.SUPPRESS)
    lab = groups.add_parser("lab", parents=[common], help="labs in network namespaces")
    names = lab.add_subparsers(required=True, metavar="COMMAND")

    up = names.add_parser("up", parents=[common], help="make a lab and leave it running")
    up.add_argument("--servers", type=int, default=3)
    up.add_argument("--agents", type=int, default=4)
    _add_quality(up, default=0.0)
    up.set_defaults(run=_up)

    change = names.add_parser("set", parents=[common], help="change delay and loss")
    _add_quality(change, default=None)
    change.set_defaults(run=_set)

    divert = names.add_parser(
        "divert", parents=[common], help="let what one host sends to another take longer"
    )
    divert.add_argument("source", metavar="FROM")
    divert.add_argument("target", metavar="TO")
    divert.add_argument("extra", type=_number(MAX_DELAY_MS), metavar="MS", help="0: no longer")
    divert.set_defaults(run=_divert)

    for kind, run in (("servers", _start_servers), ("agents", _start_agents)):
        start = names.add_parser(
            f"start-{kind}", parents=[common], help=f"start {kind} again that have died"
        )
        start.add_argument("names", nargs="*", metavar="NAME", help="default: all")
        start.set_defaults(run=run)

    down = names.add_parser("down", parents=[common], help="end a lab, or what is left of one")
    down.set_defaults(run=_down)


def _add_quality(parser: argparse.ArgumentParser, default: float | None) -> None:
    parser.add_argument(
        "--delay", type=_number(MAX_DELAY_MS), default=default, metavar="MS", help="one way"
    )
    parser.add_argument("--loss", type=_number(100), default=default, metavar="PERCENT")
    parser.add_argument(
        "--duplicate", type=_number(100), default=default, metavar="PERCENT", help="come twice"
    )
    parser.add_argument(
        "--jitter", type=_number(MAX_DELAY_MS), default=default, metavar="MS",
        help="up to so much later, each by chance",
    )  # fmt: skip


def _number(maximum: float) -> Any:
    def parse(text: str) -> float:
        value = float(text)
        if not 0 <= value <= maximum:
            raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to {maximum:g}")
        return value

    parse.__name__ = "number"  # argparse shows it when float() refuses
    return parse


def _directory(options: argparse.Namespace) -> Path:
    return getattr(options, "dir", Path(".lab"))


def _show(options: argparse.Namespace, answer: Any, text: str) -> None:
    print(json.dumps(answer, indent=2) if getattr(options, "json", False) else text)


def _show_lab(options: argparse.Namespace, made: Inventory, what: str) -> None:
    path = topology.paths(_directory(options)).inventory
    servers, agents = len(made.servers), len(made.agents)
    _show(
        options,
        made.model_dump(mode="json"),
        f"{what}: {servers} servers, {agents} agents; see {path}",
    )


def _up(options: argparse.Namespace) -> None:
    quality = Quality(*_quality(options))
    where, servers, agents = _directory(options), options.servers, options.agents
    made = _while("making the lab", lambda: commands.up(where, servers, agents, quality))
    _show_lab(options, made, "the lab is up")


def _start_servers(options: argparse.Namespace) -> None:
    where, names = _directory(options), options.names
    made = _while("starting servers", lambda: commands.start_servers(where, names))
    _show_lab(options, made, "servers run")


def _start_agents(options: argparse.Namespace) -> None:
    where, names = _directory(options), options.names
    made = _while("starting agents", lambda: commands.start_agents(where, names))
    _show_lab(options, made, "agents run")


def _while(text: str, work: Callable[[], T]) -> T:
    with Progress("wgmap-chaos") as progress:
        progress.say(text)
        return work()


def _quality(options: argparse.Namespace) -> tuple[float, float, float, float]:
    return options.delay, options.loss, options.duplicate, options.jitter


def _set(options: argparse.Namespace) -> None:
    quality = commands.set_quality(_directory(options), *_quality(options))
    text = (
        f"delay {quality.delay_ms:g} ms one way, up to {quality.jitter_ms:g} ms more,"
        f" loss {quality.loss_percent:g} %, twice {quality.duplicate_percent:g} %"
    )
    _show(options, asdict(quality), text)


def _divert(options: argparse.Namespace) -> None:
    commands.divert(_directory(options), options.source, options.target, options.extra)
    answer = {"source": options.source, "target": options.target, "extra_ms": options.extra}
    _show(options, answer, f"{options.source} to {options.target}: {options.extra:g} ms later")


def _down(options: argparse.Namespace) -> None:
    _while("ending the lab", lambda: commands.down(_directory(options)))
    _show(options, {}, "the lab is gone")
