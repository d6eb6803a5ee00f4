"""Each command of the documents is run by a test: by the story, or by what is named for it."""

from pathlib import Path

import pytest

from support.documents import said
from support.documents.elsewhere import ELSEWHERE, Elsewhere
from support.documents.said import ROOT
from support.documents.story import STORY

COMMANDS = said.all_commands()
EXAMPLE = """
```
sudo .venv/bin/wgmap status   # how it is
wgmap peer add a1 \\
    --prefix 10.0.0.0/8
{}
```
`wgmap audit [--since N]`, `peer show NAME`, `wgmap`, `not a command`, `kill -9 $(jq .[0])`
"""


def is_told(command: str) -> bool:
    """Say whether the story gives a command, or the mention of one: its first words."""
    words = command.split()
    return any(step.documented.split()[: len(words)] == words for step in STORY)


def elsewhere(command: str) -> Elsewhere | None:
    return next((one for one in ELSEWHERE if command.startswith(one.begins)), None)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_command_is_run(command: str) -> None:
    where = ", ".join(dict.fromkeys(COMMANDS[command]))
    assert is_told(command) or elsewhere(command), f"{where}: nothing runs it"


def test_what_is_run_is_documented() -> None:
    """A step or a reason that no document has any more is taken out."""
    stale = {step.documented for step in STORY if step.documented} - set(COMMANDS)
    assert not stale
    needless = [one.begins for one in ELSEWHERE if not _is_needed(one)]
    assert not needless


def _is_needed(one: Elsewhere) -> bool:
    return any(elsewhere(command) == one and not is_told(command) for command in COMMANDS)


@pytest.mark.parametrize("one", ELSEWHERE, ids=lambda one: one.begins.strip())
def test_what_runs_it_elsewhere_is_there(one: Elsewhere) -> None:
    assert (ROOT / one.by).is_file()
    assert one.why


def test_it_finds_commands_as_they_are_typed(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text(EXAMPLE)
    assert list(said.commands(path)) == [
        *("wgmap status", "wgmap peer add a1 --prefix 10.0.0.0/8", "wgmap audit --since N"),
        *("wgmap peer show NAME", "kill -9 $(jq .[0])"),
    ]
    assert not is_told("wgmap stats")
    assert len(COMMANDS) > 100
