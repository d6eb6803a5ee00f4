"""Which agents were heard lately, counted without looking at each."""

PERIOD_S = 30.0


class Heard:
    """Agents heard in this period and in the one before: 30 to 60 seconds in all."""

    def __init__(self) -> None:
        self._now: set[str] = set()
        self._before: set[str] = set()
        self._ends = 0.0

    def add(self, agent: str, now: float) -> None:
        """Note that an agent was heard."""
        if now < self._ends and agent in self._now:
            return
        self._turn(now)
        self._now.add(agent)
        self._before.discard(agent)

    def count(self, now: float) -> int:
        """Return how many agents were heard lately."""
        self._turn(now)
        return len(self._now) + len(self._before)

    def _turn(self, now: float) -> None:
        if now < self._ends:
            return
        lately = now < self._ends + PERIOD_S
        self._before, self._now = (self._now if lately else set()), set()
        self._ends = now + PERIOD_S
