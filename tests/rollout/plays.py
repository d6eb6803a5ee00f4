"""A playbook that runs, and what it ends with."""

import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

PLAY_S = 1800.0


@dataclass(frozen=True)
class Recap:
    """What a playbook ended with."""

    name: str
    code: int
    output: str
    took_s: float

    @property
    def changed(self) -> dict[str, int]:
        """How many tasks changed something, by host."""
        return self._count("changed")

    @property
    def failed(self) -> dict[str, int]:
        """How many tasks failed, by host."""
        return self._count("failed")

    @property
    def unreachable(self) -> set[str]:
        """The hosts that were not reached."""
        return {host for host, count in self._count("unreachable").items() if count}

    def changed_in(self, task: str) -> list[str]:
        """Return the hosts that a task changed, in their order."""
        found = []
        for section in re.split(r"^TASK \[", self.output, flags=re.MULTILINE):
            title, _, lines = section.partition("]")
            if title.rpartition(" : ")[2] == task:
                found += re.findall(r"^changed: \[(\S+)\]", lines, re.MULTILINE)
        return found

    def _count(self, what: str) -> dict[str, int]:
        _, _, recap = self.output.rpartition("PLAY RECAP")
        lines = re.findall(rf"^(\S+)\s+:.*\b{what}=(\d+)", recap, re.MULTILINE)
        return {host: int(number) for host, number in lines}


class Play:
    """A playbook, from its beginning; its output goes to the end of a log."""

    def __init__(
        self, name: str, command: list[str], environment: dict[str, str], log: Path
    ) -> None:
        """Begin it."""
        self._name, self._log = name, log
        self._start, self._began = log.stat().st_size, time.monotonic()
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )

    def wait(self) -> Recap:
        """Wait for its end."""
        try:
            code = self._process.wait(PLAY_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        took = time.monotonic() - self._began
        with self._log.open("rb") as log:
            log.seek(self._start)
            return Recap(self._name, code, log.read().decode(), took)

    def kill(self) -> None:
        """End the control host's part of it at once, as a loss of power does."""
        for pid in descendants(self._process.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()


def descendants(pid: int) -> list[int]:
    """Return a process and all that it has begun."""
    found = [pid]
    for one in found:
        try:
            children = Path(f"/proc/{one}/task/{one}/children").read_text()
        except FileNotFoundError:
            continue
        found += [int(child) for child in children.split()]
    return found
