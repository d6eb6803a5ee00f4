"""The command line of what is done beside the daily work: tokens and the like."""

from pathlib import Path

from wgmap_cluster.cli.levels import Level, later

ROLES = ("read", "operate", "admin")


def add(top: Level) -> None:
    """Add these commands."""
    _add_tokens(top.level("token", "bearer tokens for the API over TCP"))


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
