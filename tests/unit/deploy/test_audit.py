"""What the audit of dependencies makes of pip-audit's answers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
GOOD = {"name": "good", "version": "1", "vulns": []}
BAD = {"name": "bad", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": []}]}
UNKNOWN = {"name": "unknown", "skip_reason": "not found in the index"}


def audited(folder: Path, answer: str, *options: str) -> tuple[int, str]:
    """Run the audit with a program in pip-audit's place; returns exit code and what it said."""
    program = folder / "pip-audit"
    program.write_text(f"#!/bin/sh\necho 'no connection' >&2\ncat <<'END'\n{answer}\nEND\nexit 1\n")
    program.chmod(0o755)
    ended = subprocess.run(
        [sys.executable, str(ROOT / "scripts/audit.py"), *options],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PIP_AUDIT": str(program)},
    )
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("dependencies", "code", "said"),
    [
        ([GOOD], 0, "1 dependencies: no advisory"),
        ([GOOD, BAD], 1, "bad 2: PYSEC-1"),
        ([GOOD, UNKNOWN], 1, "unknown : not found in the index"),
    ],
)
@pytest.mark.parametrize("options", [(), ("--if-reached",)])
def test_a_weakness_fails_and_so_does_what_was_left_out(
    tmp_path: Path, dependencies: list[object], code: int, said: str, options: tuple[str, ...]
) -> None:
    answer = json.dumps({"dependencies": dependencies})
    assert audited(tmp_path, answer, *options)[0] == code
    assert said in audited(tmp_path, answer, *options)[1]


@pytest.mark.parametrize("answer", ["", json.dumps({"dependencies": [UNKNOWN]})])
def test_where_nothing_is_reached_it_says_so_and_is_no_success(tmp_path: Path, answer: str) -> None:
    for options, code in (((), 1), (("--if-reached",), 0)):
        ended, said = audited(tmp_path, answer, *options)
        assert (ended, "were NOT audited" in said) == (code, True)
