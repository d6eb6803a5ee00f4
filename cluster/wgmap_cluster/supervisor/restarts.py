"""How long to wait before a child that died is started again. Pure."""

from dataclasses import dataclass

FIRST_S = 0.1
LONGEST_S = 5.0
STEADY_S = 10.0  # who lived this long is started at once and has a clean record


@dataclass(slots=True)
class Restarts:
    """The record of one child."""

    in_a_row: int = 0

    def delay(self, lived_s: float) -> float:
        """Return the seconds to wait after a life of ``lived_s``: none, then doubling."""
        if lived_s >= STEADY_S:
            self.in_a_row = 0
        self.in_a_row += 1
        if self.in_a_row == 1:
            return 0.0
        return min(FIRST_S * 2.0 ** (self.in_a_row - 2), LONGEST_S)
