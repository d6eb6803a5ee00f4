"""`--help` of every program explains each command and each of its arguments."""

import argparse
from collections.abc import Iterator

import pytest

import wgmap_agent.main
import wgmap_cluster.main
from wgmap_cluster.cli import arguments

PARSERS = {
    "wgmap": arguments.parser(),
    "wgmap-agent": wgmap_agent.main.parser(),
    "wgmap-server": wgmap_cluster.main.parser(),
}


def unexplained(parser: argparse.ArgumentParser, path: str) -> Iterator[str]:
    """Name the commands and arguments that say nothing about themselves."""
    if not parser.description:
        yield path
    for action in parser._actions:  # argparse shows them nowhere else
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield from unexplained(command, f"{path} {name}")
        elif not action.help and action.dest != "name":  # of what, the command says
            yield f"{path}: {action.option_strings or action.dest}"


@pytest.mark.parametrize("name", PARSERS)
def test_every_command_and_argument_is_explained(name: str) -> None:
    assert list(unexplained(PARSERS[name], name)) == []


@pytest.mark.parametrize("name", PARSERS)
def test_help_tells_the_exit_codes(name: str) -> None:
    text = " ".join(PARSERS[name].format_help().split())
    for code in ("0 done", "1 failed", "2 usage", "3 done, but not yet confirmed"):
        assert code in text


@pytest.mark.parametrize("name", PARSERS)
def test_every_program_tells_its_version(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        PARSERS[name].parse_args(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("wgmap ")
