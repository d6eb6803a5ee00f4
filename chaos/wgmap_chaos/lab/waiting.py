"""Waiting for conditions, with a deadline."""

import os
import time
from collections.abc import Callable
from typing import TypeVar

from wgmap import clock
from wgmap_chaos.lab.errors import LabError

T = TypeVar("T")
SCALE_VARIABLE = "WGMAP_TIME_SCALE"  # 10 in an emulator: every deadline ten times as long
POLL_S = 0.05


def time_scale() -> float:
    """Return how much slower than usual this machine is said to be; raises LabError."""
    text = os.environ.get(SCALE_VARIABLE, "1")
    try:
        scale = float(text)
    except ValueError:
        scale = 0.0
    if not 0 < scale <= 1000:
        raise LabError(f"{SCALE_VARIABLE} must be a number from 0 to 1000, not {text!r}")
    return scale


class Deadline:
    """A point in time by which a whole sequence of waits must be over."""

    def __init__(self, seconds: float, *, may_shrink: bool = True) -> None:
        """Start now; ``seconds`` are multiplied by the time scale.

        ``may_shrink``: by a scale below 1 too, with which tests provoke that time runs out. What
        takes things away must not run out of it.
        """
        scale = time_scale()
        self._limit = seconds * (scale if may_shrink else max(1.0, scale))
        self._end = clock.now() + self._limit

    @property
    def remaining(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self._end - clock.now())

    def expire(self) -> None:
        """End all waits, those of other threads too."""
        self._end = clock.now()

    def wait(
        self, condition: Callable[[], T | None], what: Callable[[], str], poll_s: float = POLL_S
    ) -> T:
        """Return the first true result of ``condition``, which is asked every ``poll_s``.

        Raises LabError with ``what()``, which says what did not happen.
        """
        while not (result := condition()):
            if not self.remaining:
                raise LabError(f"not within {self._limit:.0f} s: {what()}")
            time.sleep(poll_s)
        return result
