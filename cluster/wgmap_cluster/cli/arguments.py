"""The command line of ``wgmap``: what is wrong here ends with exit code 2."""

import argparse
import ipaddress
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from wgmap.addresses import IPNetwork
from wgmap.wg.keys import PublicKey
from wgmap_cluster.cli import commands
from wgmap_cluster.cli.commands import Command

SOCKET_VARIABLE = "WGMAP_SOCKET"
DEFAULT_SOCKET = Path("/run/wgmap/admin.sock")
MAX_INSTANCE = (1 << 32) - 1
T = TypeVar("T")


def parse(argv: list[str] | None = None) -> tuple[Command, argparse.Namespace]:
    """Read the arguments; exits with 2 and a usage line where they are wrong."""
    parser = _parser()
    options = argparse.Namespace(
        socket=Path(os.environ.get(SOCKET_VARIABLE) or DEFAULT_SOCKET), json=False
    )
    parser.parse_args(argv, options)
    command: Command = options.command
    _check(options.parser, options)
    return command, options


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if getattr(options, "lisp_auth", None) is not None and options.lisp_key is None:
        parser.error("--lisp-auth without --lisp-key")


def _value(read: Callable[[str], T], what: str) -> Callable[[str], T]:
    def convert(text: str) -> T:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}: {error}") from error

    return convert


def _instance(text: str) -> int:
    number = int(text)
    if not 0 <= number <= MAX_INSTANCE:
        raise ValueError(f"0 to {MAX_INSTANCE}")
    return number


def _network(text: str) -> IPNetwork:
    return ipaddress.ip_network(text)


def _eid(text: str) -> str:
    return str(ipaddress.ip_network(text) if "/" in text else ipaddress.ip_address(text))


def _common() -> argparse.ArgumentParser:
    """Options of every level; SUPPRESS keeps a later level from undoing an earlier one."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument(
        "--socket",
        type=Path,
        metavar="PATH",
        help=f"admin socket of a server (default: ${SOCKET_VARIABLE} or {DEFAULT_SOCKET})",
    )
    common.add_argument("--json", action="store_true", help="print JSON")
    return common


class _Level:
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

    def level(self, name: str, text: str) -> "_Level":
        """Add a subcommand that has subcommands."""
        return _Level(self.add(name, text), self._common)


def _parser() -> argparse.ArgumentParser:
    common = _common()
    text = "Operate a wgmap cluster through the admin socket of any of its servers."
    parser = argparse.ArgumentParser(
        "wgmap", description=text, parents=[common], allow_abbrev=False
    )
    top = _Level(parser, common)
    _add_peer_commands(top.level("peer", "enrol, list, show and revoke peers"))
    top.add("status", "show the cluster as this server sees it", commands.status)
    _add_resolve(top)
    server = top.level("server", "change the set of servers")
    server.add("transfer-leader", "have another server lead", commands.transfer_leader)
    return parser


def _add_peer_commands(peer: _Level) -> None:
    _add_peer_add(peer.add("add", "enrol a peer, print its configuration", commands.peer_add))
    peer.add("list", "list all peers", commands.peer_list)
    show = peer.add("show", "show one peer with its mappings", commands.peer_show)
    show.add_argument("name", metavar="NAME")
    revoke = peer.add("revoke", "shut a peer out for good", commands.peer_revoke)
    revoke.add_argument("name", metavar="NAME")


def _add_peer_add(parser: argparse.ArgumentParser) -> None:
    prefix = _value(_network, "a prefix")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        *("--prefix",),
        type=prefix,
        action="append",
        required=True,
        metavar="PREFIX",
        help="EID prefix that it may register (repeatable)",
    )
    identity = parser.add_mutually_exclusive_group(required=True)
    identity.add_argument(
        "--control-key", type=_value(PublicKey.parse, "a key"), metavar="KEY", help="of its agent"
    )
    identity.add_argument(
        "--control-address",
        type=_value(ipaddress.ip_address, "an address"),
        metavar="ADDRESS",
        help="of a plain LISP client",
    )
    parser.add_argument(
        "--endpoint-allow",
        type=prefix,
        action="append",
        default=[],
        metavar="PREFIX",
        help="underlay prefix that its endpoints may lie in (repeatable)",
    )
    _add_instance(parser)
    parser.add_argument("--lisp-key", metavar="SECRET", help="of a plain LISP client")
    parser.add_argument("--lisp-auth", choices=("sha256", "sha1"), help="default: sha256")


def _add_resolve(top: _Level) -> None:
    resolve = top.add("resolve", "show the mapping of an EID", commands.resolve)
    resolve.add_argument("eid", metavar="EID", type=_value(_eid, "an address or prefix"))
    _add_instance(resolve)


def _add_instance(parser: argparse.ArgumentParser) -> None:
    number = _value(_instance, "an instance id")
    parser.add_argument("--instance", type=number, default=0, metavar="N", help="default: 0")
