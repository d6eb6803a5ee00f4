"""Commands that the documents tell people to give are commands, with options that there are."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from wgmap_agent import main as agent
from wgmap_chaos import main as chaos
from wgmap_cluster import main as server
from wgmap_cluster.cli import arguments

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PARSERS = {
    "wgmap": arguments.parser,
    "wgmap-server": server.parser,
    "wgmap-agent": agent.parser,
    "wgmap-chaos": chaos.parser,
}
_COMMAND = re.compile(r"(?:^|[\s`(/])(wgmap(?:-server|-agent|-chaos)?) ([a-z-][^`\n|;]*)")
_MAKE = re.compile(r"`make ([a-z-]+)|^make ([a-z-]+)", re.M)


def commands(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield what stands in code: program and words."""
    text = re.sub(r"\$\([^)]*\)", "VALUE", path.read_text().replace("\\\n", " "))
    blocks = "\n".join(re.findall(r"```\w*\n(.*?)```", text, re.S))
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S))
    for code in (*blocks.splitlines(), *inline):
        for program, rest in _COMMAND.findall(code):
            yield program, re.split(r"[\s>]+", rest.strip())


def check(parser: argparse.ArgumentParser, words: list[str]) -> None:
    """Go down the levels of subcommands; every option must be one of those that were passed."""
    known = set(parser._option_string_actions)
    for word in words:
        deeper = next(
            (a for a in parser._actions if isinstance(a, argparse._SubParsersAction)), None
        )
        if word.startswith("-") and word != "-":
            option = word.partition("=")[0].rstrip(",.])")
            assert option in known, f"no option {option}"
        elif deeper is not None and re.fullmatch(r"[a-z][a-z-]*", word):
            names = word.split("|")
            assert names[0] in deeper.choices, f"no command {word}"
            parser = deeper.choices[names[0]]
            known |= set(parser._option_string_actions)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_are_commands(path: Path) -> None:
    for program, words in commands(path):
        cleaned = [word.strip("[](),.") for word in words]
        try:
            check(PARSERS[program](), [word for word in cleaned if word])
        except AssertionError as error:
            pytest.fail(f"{path.name}: {program} {' '.join(words)}: {error}")


def test_targets_are_targets() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for path in DOCUMENTS:
        for inline, block in _MAKE.findall(path.read_text()):
            assert (inline or block) in targets, f"{path.name}: make {inline or block}"


def test_it_finds_what_is_wrong() -> None:
    assert sum(len(list(commands(path))) for path in DOCUMENTS) > 80
    parser = arguments.parser()
    for words in (["peer", "revok", "x"], ["peer", "list", "--all"], ["stats"]):
        with pytest.raises(AssertionError):
            check(parser, words)
