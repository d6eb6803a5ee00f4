"""``wgmap token``: needs no server."""

import argparse

from wgmap_cluster.admin import tokens
from wgmap_cluster.admin.routes import Role
from wgmap_cluster.cli.client import Client
from wgmap_cluster.cli.commands import Report


def make(_client: Client, options: argparse.Namespace) -> Report:
    """Make a token and put its hash into a file; raises ConfigError, ConflictError."""
    token, holder = tokens.make(options.name, Role[options.role.upper()])
    if options.file is not None:
        tokens.add(options.file, holder)
        said = f"it is in {options.file}; every server wants the same line"
    else:
        said = f"its line for the file of admin.tokens, on every server:\n{holder.line()}"
    value = {
        "name": holder.name,
        "role": options.role,
        "token": token,
        "line": holder.line(),
        "file": None if options.file is None else str(options.file),
    }
    return Report(value, token, warning=said)
