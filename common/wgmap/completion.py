"""A shell's completion of a program, made from the parser of its command line."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wgmap.errors import ExitCode

SHELLS = ("bash", "zsh")


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return what the shell is to read; file names are completed where a Path is wanted."""
    import shtab  # noqa: PLC0415  # not for a command that completes nothing

    for action in _actions(parser):
        if action.type is Path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # shtab reads it
    return shtab.complete(parser, shell)


def add_command(commands: Any, parser: argparse.ArgumentParser) -> None:
    """Add ``completion SHELL`` to a parser's commands."""
    text = "Print a shell's completion of this program."
    one = commands.add_parser("completion", help=text, description=text)
    one.add_argument("shell", choices=SHELLS, help="which shell is to read it")
    one.set_defaults(command=lambda options: _print(parser, options.shell))


def _print(parser: argparse.ArgumentParser, shell: str) -> ExitCode:
    sys.stdout.write(script(parser, shell) + "\n")
    return ExitCode.OK


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:  # noqa: SLF001  # argparse shows them nowhere else
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for each in action.choices.values():
                yield from _actions(each)
        else:
            yield action
