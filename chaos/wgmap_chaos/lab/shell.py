"""Running programs: short ones to their end, daemons into the background."""

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
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


class Daemon:
    """A program in the background; it goes on when we end."""

    def __init__(
        self, argv: Sequence[str], log: Path, environment: Mapping[str, str] = os.environ
    ) -> None:
        """Start it in a session of its own, its output appended to ``log``; raises LabError."""
        output = (str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            self.pid = os.posix_spawnp(
                argv[0],
                list(argv),
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, *output),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,
                setsigdef=[signal.SIGPIPE],  # Python ignores it, and that would be inherited
            )
        except OSError as error:
            raise LabError(f"{shlex.join(argv)}: {error.strerror}") from error
        self._code: int | None = None
        self._lock = threading.Lock()  # a process is waited for once

    def exit_code(self) -> int | None:
        """Return how it ended (negative: by that signal); None while it runs."""
        with self._lock:
            if self._code is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self._code = os.waitstatus_to_exitcode(status)
        return self._code


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
