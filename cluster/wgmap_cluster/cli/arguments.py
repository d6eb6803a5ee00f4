"""The command line of ``wgmap``: what is wrong here ends with exit code 2."""

import argparse
import os
from pathlib import Path

from wgmap import __version__
from wgmap.program import EPILOG
from wgmap.wg.keys import PublicKey
from wgmap_cluster.cli import commands, tools
from wgmap_cluster.cli.commands import Command
from wgmap_cluster.cli.levels import (
    DEFAULT_SOCKET,
    EID,
    MAX_INSTANCE,
    SOCKET_VARIABLE,
    Level,
    address,
    common,
    eid,
    later,
    network,
    number,
    secret_in,
    some_name,
    value,
)

MAX_PEER_LIMIT = 64
_PEER_VALUES = ("name_new", "prefix", "endpoint_allow", "control_key", "lisp_key", "limit")


def parse(argv: list[str] | None = None) -> tuple[Command, argparse.Namespace]:
    """Read the arguments; exits with 2 and a usage line where they are wrong."""
    root = parser()
    options = argparse.Namespace(
        socket=Path(os.environ.get(SOCKET_VARIABLE) or DEFAULT_SOCKET), json=False
    )
    root.parse_args(argv, options)
    command: Command = options.command
    _check(options.parser, options)
    return command, options


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.command is commands.peer_set:
        wanted = (*_PEER_VALUES, "no_endpoint_allow", "lisp_auth")
        if not any(getattr(options, name) not in (None, False) for name in wanted):
            parser.error("nothing to change")
        return
    if options.command is commands.instance_set and not (
        options.no_overlay or options.overlay or options.max_mappings is not None
    ):
        parser.error("nothing to change")
    if (getattr(options, "unseal_with", None) is None) != (
        getattr(options, "keys_to", None) is None
    ):
        parser.error("--unseal-with and --keys-to go together")
    if getattr(options, "lisp_auth", None) is not None and options.lisp_key is None:
        parser.error("--lisp-auth without --lisp-key")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    shared = common()
    text = "Operate a wgmap cluster through the admin socket of any of its servers."
    parser = argparse.ArgumentParser(
        "wgmap", description=text, epilog=EPILOG, parents=[shared], allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"wgmap {__version__}")
    top = Level(parser, shared)
    _add_peer_commands(top.level("peer", "enrol, list, show and revoke peers"))
    top.add("status", "show the cluster as this server sees it", commands.status)
    _add_resolve(top)
    _add_instance_commands(top.level("instance", "virtual networks with their own address space"))
    _add_record_commands(top)
    _add_archive_commands(top)
    _add_server_commands(top.level("server", "change the set of servers"))
    tools.add(top, parser)
    return parser


def _add_server_commands(server: Level) -> None:
    server.add("list", "list the servers", later("servers", "show"))
    transfer = server.add(
        "transfer-leader", "have another server lead", later("servers", "transfer_leader")
    )
    transfer.add_argument("name", metavar="NAME", nargs="?", help="default: whoever fits")
    remove = server.add(
        "remove", "take a server out; ask another one for it", later("servers", "remove")
    )
    remove.add_argument("name", type=value(some_name, "a name"), metavar="NAME")
    _add_server_add(
        server.add("add", "add a server that runs with an empty state", later("servers", "add"))
    )


def _add_server_add(add: argparse.ArgumentParser) -> None:
    add.add_argument("name", metavar="NAME")
    key, host = value(PublicKey.parse, "a key"), value(address, "an address")
    for option in ("--mesh-key", "--control-key"):
        add.add_argument(option, type=key, required=True, metavar="KEY", help="public key")
    add.add_argument(
        *("--endpoint",),
        required=True,
        metavar="ADDRESS[:PORT]",
        help="on the underlay; the port is the control interface's",
    )
    for option, text in (("--mesh-address", "in the mesh"), ("--control-address", "for agents")):
        add.add_argument(option, type=host, required=True, metavar="ADDRESS", help=text)


def _add_peer_commands(peer: Level) -> None:
    _add_peer_set(peer.add("set", "change a peer", commands.peer_set))
    bulk = peer.add("import", "enrol many peers from a file of JSON lines", later("bulk"))
    bulk.add_argument("file", type=Path, metavar="FILE", help="- for the standard input")
    _add_peer_add(peer.add("add", "enrol a peer, print its configuration", commands.peer_add))
    peer.add("list", "list all peers", commands.peer_list)
    show = peer.add("show", "show one peer with its mappings", commands.peer_show)
    show.add_argument("name", type=value(some_name, "a name"), metavar="NAME")
    revoke = peer.add("revoke", "shut a peer out for good", commands.peer_revoke)
    revoke.add_argument("name", type=value(some_name, "a name"), metavar="NAME")
    _add_if_revision(revoke)


def _add_limit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--limit",
        type=value(number(MAX_PEER_LIMIT), "a limit"),
        metavar="N",
        help=f"most prefixes and mappings at one time (0: the default, {MAX_PEER_LIMIT})",
    )


def _add_peer_set(parser: argparse.ArgumentParser) -> None:
    prefix = value(network, "a prefix")
    parser.add_argument("name", type=value(some_name, "a name"), metavar="NAME")
    parser.add_argument("--name", dest="name_new", metavar="NEW", help="rename it")
    parser.add_argument(
        *("--prefix",),
        type=prefix,
        action="append",
        metavar="PREFIX",
        help="in place of all its EID prefixes (repeatable)",
    )
    endpoints = parser.add_mutually_exclusive_group()
    endpoints.add_argument(
        *("--endpoint-allow",),
        type=prefix,
        action="append",
        metavar="PREFIX",
        help="in place of all its underlay prefixes (repeatable)",
    )
    endpoints.add_argument("--no-endpoint-allow", action="store_true", help="allow none")
    parser.add_argument(
        *("--control-key",),
        type=value(PublicKey.parse, "a key"),
        metavar="KEY",
        help="its mappings go, and it starts anew with this key",
    )
    _add_secret(parser)
    parser.add_argument("--lisp-auth", choices=("sha256", "sha1"), help="default: as it is")
    _add_limit(parser)
    _add_if_revision(parser)


def _add_if_revision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        *("--if-revision",),
        type=value(number((1 << 63) - 1), "a revision"),
        metavar="N",
        help="only if that is its revision (see: wgmap peer show)",
    )


def _add_instance_commands(instance: Level) -> None:
    instance.add("list", "list the instances", commands.instance_list)
    change = instance.add("set", "set an overlay or a limit", commands.instance_set)
    change.add_argument(
        "instance",
        type=value(number(MAX_INSTANCE), "an instance id"),
        metavar="N",
        help="its number",
    )
    overlay = change.add_mutually_exclusive_group()
    overlay.add_argument(
        *("--overlay",),
        type=value(network, "a prefix"),
        nargs="+",
        action="extend",
        metavar="PREFIX",
        help="what agents route into tunnels",
    )
    overlay.add_argument("--no-overlay", action="store_true", help="the cluster's again")
    change.add_argument(
        *("--max-mappings",),
        type=value(number((1 << 32) - 1), "a number"),
        metavar="N",
        help="0: the default",
    )
    change.add_argument(
        *("--if-tag",),
        type=value(number((1 << 63) - 1), "a tag"),
        metavar="TAG",
        help="only if that is the tag of its values (see: wgmap instance list --json)",
    )


def _add_record_commands(top: Level) -> None:
    audit = top.add("audit", "show what operators did", commands.audit)
    after = value(number((1 << 63) - 1), "a number")
    audit.add_argument(
        "--limit",
        type=value(number(10_000), "a number"),
        default=100,
        metavar="N",
        help="default: 100",
    )
    audit.add_argument("--since", type=after, metavar="N", help="only what came after number N")
    events = top.add("events", "show what happens in the cluster", later("follow", "events"))
    events.add_argument("--follow", action="store_true", help="go on with what comes")


def _add_archive_commands(top: Level) -> None:
    backup = top.add("backup", "write a backup of the cluster", later("archives", "backup"))
    backup.add_argument("file", type=Path, metavar="FILE", help="where it is written")
    backup.add_argument(
        *("--seal-to",),
        type=value(PublicKey.parse, "a key"),
        metavar="KEY",
        help="put this server's private keys in, sealed to this public key (wg genkey | wg pubkey)",
    )
    restore = top.add("restore", "put a backup into an empty cluster", later("archives", "restore"))
    restore.add_argument("file", type=Path, metavar="FILE", help="as `backup` wrote it")
    restore.add_argument(
        "--revoke", type=Path, metavar="FILE", help="names of peers that the backup still trusts"
    )
    restore.add_argument(
        *("--unseal-with",),
        type=Path,
        metavar="FILE",
        help="private key: only take the servers' keys out of the backup",
    )
    restore.add_argument("--keys-to", type=Path, metavar="DIR", help="where these go")


def _add_peer_add(parser: argparse.ArgumentParser) -> None:
    prefix = value(network, "a prefix")
    parser.add_argument("name", type=value(some_name, "a name"), metavar="NAME")
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
        "--control-key", type=value(PublicKey.parse, "a key"), metavar="KEY", help="of its agent"
    )
    identity.add_argument(
        "--control-address",
        type=value(address, "an address"),
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
    _add_limit(parser)
    _add_secret(parser)
    parser.add_argument("--lisp-auth", choices=("sha256", "sha1"), help="default: sha256")


def _add_secret(parser: argparse.ArgumentParser) -> None:
    secret = parser.add_mutually_exclusive_group()
    secret.add_argument(
        "--lisp-key", metavar="SECRET", help="of a plain LISP client; lists of processes show it"
    )
    secret.add_argument(
        *("--lisp-key-file",),
        dest="lisp_key",
        type=secret_in,
        metavar="FILE",
        help="the same, from a file (-: standard input)",
    )


def _add_resolve(top: Level) -> None:
    resolve = top.add("resolve", "show the mapping of an EID", commands.resolve)
    resolve.add_argument("eid", metavar="EID", type=value(eid, "an address or prefix"), help=EID)
    _add_instance(resolve)


def _add_instance(parser: argparse.ArgumentParser) -> None:
    instance = value(number(MAX_INSTANCE), "an instance id")
    parser.add_argument("--instance", type=instance, default=0, metavar="N", help="default: 0")
