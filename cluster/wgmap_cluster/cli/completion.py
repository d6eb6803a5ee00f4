"""``wgmap completion SHELL``."""

import argparse

from wgmap.completion import script
from wgmap_cluster.cli.client import Client
from wgmap_cluster.cli.commands import Report


def completion(_client: Client, options: argparse.Namespace) -> Report:
    """Print the script."""
    text = script(options.root, options.shell)
    return Report({"shell": options.shell, "script": text}, text)
