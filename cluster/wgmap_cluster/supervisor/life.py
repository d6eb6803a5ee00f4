"""Signs of life: a child's event loop writes a byte a second, and its supervisor reads them.

A process that hangs is worse than one that died: it keeps its socket and answers nobody. So a
child that has said nothing for long is killed and started again, the other one untouched.
"""

import asyncio
import contextlib
import os
from typing import NamedTuple, NoReturn

from wgmap.clock import now

ENVIRONMENT = "WGMAP_LIFE_FD"  # not an argument: whoever runs as a child inherits it
BEAT_S = 1.0
AWAY_S = 5.0  # between two looks, each second: the supervisor itself stood still
_READ = 4096


class Patience(NamedTuple):
    """How many seconds without a sign of life are too many."""

    start_s: float = 120.0  # before the first: a million mappings are read in 5 s
    silent_s: float = 30.0  # longer than any disk that recovers or snapshot that is taken


PATIENCE = Patience()


class Listener:
    """The supervisor's end, for one life of a child."""

    def __init__(self, patience: Patience) -> None:
        """Open a pipe; ``write_fd`` is the child's."""
        self._read_fd, self.write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._patience = patience
        self._looked_at = now()
        self._overdue_at = self._looked_at + patience.start_s

    def handed_over(self) -> None:
        """Close the child's end here, once it has it."""
        os.close(self.write_fd)
        self.write_fd = -1

    def is_silent(self) -> bool:
        """Tell whether the child has said nothing for too long.

        A time in which nobody looked does not count: the machine was suspended, and the child
        with it.
        """
        at = now()
        away_s, self._looked_at = at - self._looked_at, at
        if away_s > AWAY_S:
            self._overdue_at += away_s
        with contextlib.suppress(BlockingIOError):
            if os.read(self._read_fd, _READ):
                self._overdue_at = at + self._patience.silent_s
        return at > self._overdue_at

    def close(self) -> None:
        """Close what is open."""
        for descriptor in (self._read_fd, self.write_fd):
            if descriptor >= 0:
                os.close(descriptor)
        self._read_fd = self.write_fd = -1


async def beat() -> NoReturn:
    """Write a sign of life every second; for the loop of a child. No one listens: no harm."""
    text = os.environ.get(ENVIRONMENT, "")
    descriptor = int(text) if text.isdigit() else None
    while True:
        if descriptor is not None:
            # A full pipe: the supervisor is the one that hangs.
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                os.write(descriptor, b"+")
        await asyncio.sleep(BEAT_S)
