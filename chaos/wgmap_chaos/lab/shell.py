"""Running programs: short ones to their end, daemons into the background."""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from wgmap_chaos.lab.errors import LabError
from wgmap_chaos.lab.waiting import time_scale

TAIL_LINES = 15
_TAIL_BYTES = 8192


def program(name: str) -> str:
    """Return the path of a program of wgmap: beside the interpreter that runs this one."""
    return str(Path(sys.executable).parent / name)


def inside(netns: str, argv: Sequence[str]) -> list[str]:
    """Return the command that runs ``argv`` in a namespace (it is replaced, not forked)."""
    return ["ip", "netns", "exec", netns, *argv]


def run(
    argv: Sequence[str], *, text: str = "", timeout_s: float = 30.0, keep: tuple[int, ...] = ()
) -> str:
    """Run a program with ``text`` as its input; return its output.

    ``keep`` are descriptors that it inherits: with the lab's lock among them, nobody else
    changes the lab before it has ended, even if we are killed. Raises LabError.
    """
    command = shlex.join(argv)
    try:
        done = subprocess.run(
            argv,
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s * time_scale(),
            check=False,
            pass_fds=keep,
        )
    except OSError as error:
        raise LabError(f"{command}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{command}: no end after {error.timeout:.0f} s") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-_TAIL_BYTES:]
        raise LabError(f"{command}: exit code {done.returncode}\n{said}")
    return done.stdout


def spawn(argv: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a daemon in a session of its own, its output appended to ``log``; raises LabError."""
    try:
        with log.open("ab") as output:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
    except OSError as error:
        raise LabError(f"{shlex.join(argv)}: {error.strerror}") from error


def tail(log: Path) -> str:
    """Return the end of a log file, indented, for an error message."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError as error:
        return f"  ({log}: {error.strerror})"
    if not lines:
        return f"  ({log} is empty)"
    return "\n".join([f"  {log}:", *(f"  | {line}" for line in lines[-TAIL_LINES:])])
