"""What a judge says."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one judge found; ``looked_at`` 0 is no acquittal: there was nothing to judge."""

    judge: str
    looked_at: int
    what: str  # that was looked at
    broken: tuple[str, ...] = ()
    undecided: int = 0

    @property
    def held(self) -> bool:
        """Whether the promise was put to the test, and held."""
        return bool(self.looked_at) and not self.broken and not self.undecided

    @property
    def word(self) -> str:
        """The verdict in a word or two."""
        if self.broken:
            return "BROKEN"
        if self.undecided:
            return "undecided"
        return "held" if self.looked_at else "not tested"
