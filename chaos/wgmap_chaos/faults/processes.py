"""Processes that are killed, stand still, or go on: by pid, and seen to be so."""

import os
import signal
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from wgmap_chaos.faults.effect import until_true
from wgmap_chaos.lab import removal


def send(pids: Iterable[int | None], number: signal.Signals) -> None:
    """Send a signal to all that are there."""
    for pid in pids:
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def standing_still(pid: int | None) -> bool:
    """Tell whether SIGSTOP holds a process."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    return False


async def kill(pids: Sequence[int]) -> None:
    """Kill all at once, as a crash does, and see them gone; raises LabError."""
    send(pids, signal.SIGKILL)
    await until_true(lambda: not any(map(removal.alive, pids)), "SIGKILL")


async def stop(pids: Sequence[int]) -> None:
    """Have processes stand still; raises LabError."""
    send(pids, signal.SIGSTOP)
    await until_true(lambda: all(map(standing_still, pids)), "SIGSTOP")


async def go_on(pids: Sequence[int]) -> None:
    """Let processes go on; raises LabError."""
    send(pids, signal.SIGCONT)
    await until_true(lambda: not any(map(standing_still, pids)), "SIGCONT")
