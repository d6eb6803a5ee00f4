"""What command lines are made of: levels of subcommands, and readers of single values."""

import argparse
import importlib
import ipaddress
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from wgmap.addresses import IPNetwork, parse_address
from wgmap_cluster.cli.client import Client
from wgmap_cluster.cli.commands import Command, Report

SOCKET_VARIABLE = "WGMAP_SOCKET"
DEFAULT_SOCKET = Path("/run/wgmap/admin.sock")
MAX_INSTANCE = (1 << 32) - 1
EID = "inside an overlay"
T = TypeVar("T")


def value(read: Callable[[str], T], what: str) -> Callable[[str], T]:
    """Have argparse say what a value is not; ``read`` raises ValueError."""

    def convert(text: str) -> T:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}: {error}") from error

    return convert


def number(most: int) -> Callable[[str], int]:
    """Return a reader of whole numbers from 0; it raises ValueError."""

    def convert(text: str) -> int:
        number = int(text)
        if not 0 <= number <= most:
            raise ValueError(f"0 to {most}")
        return number

    return convert


def some_name(text: str) -> str:
    """Read the name of what is there, or may be; raises ValueError for none at all."""
    if not text:
        raise ValueError("it is empty")
    return text


def secret_in(path: str) -> str:
    """Read the secret that a file (-: the standard input) begins with; it is shown nowhere."""
    try:
        with sys.stdin if path == "-" else Path(path).open(encoding="utf-8") as file:
            secret = file.readline().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise argparse.ArgumentTypeError(f"{path}: {error}") from error
    if not secret:
        raise argparse.ArgumentTypeError(f"{path}: no secret in it")
    return secret


def network(text: str) -> IPNetwork:
    """Read a prefix; raises ValueError."""
    return ipaddress.ip_network(text)


def address(text: str) -> str:
    """Read an address and write it the usual way; raises ValueError."""
    return str(parse_address(text))


def eid(text: str) -> str:
    """Read an address or a prefix and write it the usual way; raises ValueError."""
    return str(ipaddress.ip_network(text) if "/" in text else parse_address(text))


def common() -> argparse.ArgumentParser:
    """Options of every level; SUPPRESS keeps a later level from undoing an earlier one."""
    parser = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    parser.add_argument(
        "--socket",
        type=Path,
        metavar="PATH",
        help=f"admin socket of a server (default: ${SOCKET_VARIABLE} or {DEFAULT_SOCKET})",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


class Level:
    """A parser with subcommands, of which one must be given."""

    def __init__(self, parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
        self._common = common
        self._commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(self, name: str, text: str, run: Command | None = None) -> argparse.ArgumentParser:
        """Add a subcommand."""
        parser = self._commands.add_parser(
            name, help=text, description=text, parents=[self._common], allow_abbrev=False
        )
        if run is not None:
            parser.set_defaults(command=run, parser=parser)
        return parser

    def level(self, name: str, text: str) -> "Level":
        """Add a subcommand that has subcommands."""
        return Level(self.add(name, text), self._common)


def later(module: str, name: str = "") -> Command:
    """Import a command's module only when it is used: a command line must start fast."""

    def run(client: Client, options: argparse.Namespace) -> Report:
        found = importlib.import_module(f"wgmap_cluster.cli.{module}")
        command: Command = getattr(found, name or "peer_import")
        return command(client, options)

    return run
