"""The command line of what is done beside the daily work: finding out, tokens, the page."""

import argparse
from pathlib import Path

from wgmap.completion import SHELLS
from wgmap_cluster.cli.levels import EID, MAX_INSTANCE, Level, eid, later, number, some_name, value

ROLES = ("read", "operate", "admin")
CONFIG = Path("/etc/wgmap/server.toml")


def add(top: Level, root: argparse.ArgumentParser) -> None:
    """Add these commands; ``root`` is the parser of the whole program."""
    _add_mappings(top.level("mapping", "what is registered"))
    _add_trace(top)
    doctor = top.add(
        *("doctor", "look at this host, its server and the cluster; say what to do"),
        later("doctor", "doctor"),
    )
    doctor.add_argument(
        *("--config",),
        type=Path,
        default=CONFIG,
        metavar="FILE",
        help=f"of the server on this host (default: {CONFIG})",
    )
    _add_tokens(top.level("token", "bearer tokens for the API over TCP"))
    _add_page(top)
    shell = top.add("completion", "print a shell's completion", later("completion", "completion"))
    shell.add_argument("shell", choices=SHELLS, help="which shell is to read it")
    shell.set_defaults(root=root)


def _instance(parser: argparse.ArgumentParser, default: int | None) -> None:
    said = "default: all" if default is None else "default: 0"
    read = value(number(MAX_INSTANCE), "an instance id")
    parser.add_argument("--instance", type=read, default=default, metavar="N", help=said)


def _add_mappings(mapping: Level) -> None:
    show = mapping.add("list", "list mappings", later("mappings", "show_list"))
    show.add_argument(
        "--search", metavar="TEXT", help="a part of a peer's name, an address or prefix, a key"
    )
    _instance(show, None)
    most = value(number(10_000_000), "a number")
    show.add_argument("--limit", type=most, default=0, metavar="N", help="at most (default: all)")
    one = mapping.add("show", "show one mapping", later("mappings", "show"))
    one.add_argument("prefix", metavar="PREFIX", type=value(eid, "an address or prefix"), help=EID)
    _instance(one, 0)


def _add_trace(top: Level) -> None:
    trace = top.add(
        "trace", "follow an EID to where a packet would stop", later("tracing", "trace")
    )
    trace.add_argument("eid", metavar="EID", type=value(eid, "an address or prefix"), help=EID)
    trace.add_argument(
        *("--from",),
        dest="source",
        type=value(some_name, "a name"),
        metavar="NAME|SOCKET",
        help="for packets of this peer; with the socket (a path) of an agent on this host, ask it",
    )
    _instance(trace, 0)


def _add_tokens(token: Level) -> None:
    make = token.add("make", "make a token; it is shown this once", later("tokens", "make"))
    make.add_argument("name", metavar="NAME", help="whose it is; the audit trail names it")
    make.add_argument("--role", choices=ROLES, required=True, help="what it may do")
    make.add_argument(
        *("--file",),
        type=Path,
        metavar="FILE",
        help="add it to this file, admin.tokens of the servers (default: show the line)",
    )


def _add_page(top: Level) -> None:
    page = top.add("page", "show the cluster in a browser on this host", later("page", "page"))
    port = value(number(65535), "a port")
    page.add_argument("--port", type=port, default=0, metavar="N", help="default: a free one")
    page.add_argument("--read-only", action="store_true", help="let it change nothing")
