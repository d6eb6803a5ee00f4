"""Run wgmap's own programs, as a person would, and read what they print as JSON."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent


class ProgramError(Exception):
    """A program ended with another exit code than was expected."""


def run(program: str, *arguments: str, ok: tuple[int, ...] = (0,), timeout_s: float = 60) -> str:
    """Run a program of this installation and return what it printed; raises ProgramError."""
    done = subprocess.run(
        [BIN / program, *arguments],
        capture_output=True, text=True, check=False, timeout=timeout_s,
    )  # fmt: skip
    if done.returncode not in ok:
        msg = f"{program} {' '.join(arguments)}: exit code {done.returncode}: {done.stderr.strip()}"
        raise ProgramError(msg)
    return done.stdout


def ask(program: str, *arguments: str, ok: tuple[int, ...] = (0,)) -> Any:
    """Run a program with --json and return what it said; raises ProgramError."""
    text = run(program, *arguments, "--json", ok=ok)
    try:
        return json.loads(text)
    except ValueError as error:
        msg = f"{program} {' '.join(arguments)}: not JSON: {text[:200]!r}"
        raise ProgramError(msg) from error
