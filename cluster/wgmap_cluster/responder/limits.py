"""How often something may happen: a token bucket for each name, one number each."""


class Limit:
    """``rate`` events a second for each name, ``burst`` at once.

    A name's number is the time at which its bucket is full again (the generic cell rate
    algorithm). Names whose bucket is full need no number: they are swept out when there are
    ``most`` of them; where all are busy the limit holds for new names together.
    """

    def __init__(self, rate: float, burst: int, most: int = 1 << 17) -> None:
        self.every = 1 / rate  # seconds
        self._slack = burst / rate
        self._most = most
        self._full_at: dict[str, float] = {}

    def allows(self, name: str, now: float, times: int = 1) -> bool:
        """Say whether it may happen now (so many times at once), and count it if so."""
        if len(self._full_at) >= self._most and name not in self._full_at:
            self._sweep(now)
            name = name if len(self._full_at) < self._most else ""
        full_at = max(self._full_at.get(name, now), now) + times * self.every
        if full_at - now > self._slack:
            return False
        self._full_at[name] = full_at
        return True

    def _sweep(self, now: float) -> None:
        self._full_at = {name: at for name, at in self._full_at.items() if at > now}
