"""``wgmap completion SHELL``: a script for the shell, made from the command line's parser."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import shtab

from wgmap_cluster.cli.client import Client
from wgmap_cluster.cli.commands import Report


def completion(_client: Client, options: argparse.Namespace) -> Report:
    """Print the script."""
    for action in _actions(options.root):
        if action.type is Path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # shtab reads it
    script = shtab.complete(options.root, options.shell)
    return Report({"shell": options.shell, "script": script}, script)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:  # noqa: SLF001  # argparse shows them nowhere else
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for each in action.choices.values():
                yield from _actions(each)
        else:
            yield action
