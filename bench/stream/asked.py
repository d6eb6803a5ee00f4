"""The stream of lookups: the program that sends it, and what became of each."""

import os
import struct
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from lookups import rows
from results import quantile

SOURCES = Path(__file__).parent
SERVER, ECHO = "responder", "echo"
LONG_S = 0.02  # what is promised: no pause above it
FIRST_ASKING = "127.240.0.1"
ASKING = 512  # peers that ask; they registered nothing, so nobody is told of them
GIVEN_UP_S = 1.0  # what is not answered by then is not waited for any more
Place = tuple[str, int]  # address and UDP port
_ASKED = struct.Struct("=QQQ")
_REAL_TIME = 1  # the lowest of those priorities: over everything that shares


@dataclass(frozen=True)
class Stream:
    """What became of the datagrams to one place; all times in seconds of one clock."""

    due: Sequence[float]
    sent: Sequence[float]
    answered: Sequence[float | None]

    @cached_property
    def took(self) -> list[float]:
        """How long answers took, from the sending on; ascending."""
        pairs = zip(self.sent, self.answered, strict=True)
        return sorted(at - sent for sent, at in pairs if at is not None)

    @cached_property
    def late(self) -> list[float]:
        """By how much what asks was late itself; ascending."""
        return sorted(sent - due for due, sent in zip(self.due, self.sent, strict=True))

    @property
    def lost(self) -> int:
        """How many were never answered."""
        return sum(at is None for at in self.answered)

    @property
    def seconds(self) -> float:
        """How long the stream was."""
        return self.due[-1] - self.due[0]

    def part(self, share: float) -> float:
        """Return the time within which so many of the answers came; not a number without any."""
        return quantile(self.took, share) if self.took else float("nan")

    @property
    def long(self) -> int:
        """How many answers took longer than is promised, or never came."""
        return sum(took > LONG_S for took in self.took) + self.lost

    @property
    def pauses(self) -> int:
        """How often the server said nothing for longer than is promised while it was asked.

        From the first question that waits to the next answer: however many wait for the same
        answer it is one pause, and what was sent late makes none.
        """
        pairs = sorted(zip(self.sent, self.answered, strict=True))
        count, over = 0, float("-inf")
        for sent, at in pairs:
            end = sent + GIVEN_UP_S if at is None else at
            if end - sent > LONG_S and sent >= over:
                count, over = count + 1, end
        return count

    @property
    def sender_gap(self) -> float:
        """The longest time in which nothing was sent."""
        return max((b - a for a, b in pairwise(sorted(self.sent))), default=float("nan"))


def read(data: bytes) -> tuple[Stream, Stream]:
    """Read what the program writes: of the server, of the echo."""
    asked = list(_ASKED.iter_unpack(data))
    half = len(asked) // 2
    start = min((due for due, _, _ in asked if due), default=0)

    def seconds(at: int) -> float:
        return (at - start) / 1e9

    def stream(of: Sequence[tuple[int, int, int]]) -> Stream:
        used = [one for one in of if one[0]]  # a place that was not asked has none
        return Stream(
            [seconds(due) for due, _, _ in used],
            [seconds(sent) for _, sent, _ in used],
            [seconds(at) if at else None for _, _, at in used],
        )

    return stream(asked[:half]), stream(asked[half:])


def ask(
    folder: Path, server: Place, echo: Place, *, seconds: float, a_second: float, hosts: int
) -> tuple[Stream, Stream]:
    """Ask a server and the echo (port 0: not that one); raises CalledProcessError."""
    data, eid_at = rows.template()
    command = [folder / "stream", *server, *echo, FIRST_ASKING, ASKING, seconds]
    command += [round(1e6 / a_second), hosts, data.hex(), eid_at]
    done = subprocess.run(
        list(map(str, command)), stdout=subprocess.PIPE, check=True, preexec_fn=_over_all
    )
    return read(done.stdout)


def _over_all() -> None:
    """Let what asks be late by as little as can be: it uses a hundredth of a processor."""
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_REAL_TIME))
