"""Whom a question goes to first, and when the others are asked as well (DESIGN, flow 4).

The preferred server is asked alone; the others are asked where it takes longer than a few of its
round trips. That costs milliseconds, so a server that just died is no visible delay, and load is
near one question for each: of the hedges while nobody is known to be silent there are at most as
many as a share of the questions (and a small burst). One that is refused waits for the repetition.
"""

from dataclasses import dataclass

from wgmap_agent.engine.servers import Server, Servers
from wgmap_agent.engine.settings import Settings


@dataclass(frozen=True, slots=True)
class Choice:
    """The servers that a question goes to now, and when to the others (None: there are none)."""

    servers: tuple[Server, ...]
    others_at: float | None


class Hedging:
    """Chooses servers and keeps the budget of hedges."""

    def __init__(self, servers: Servers, settings: Settings) -> None:
        self._servers = servers
        self._settings = settings
        self._budget = settings.hedge_burst

    def first(
        self, now: float, *, refresh: bool, everybody: bool = False, only: str | None = None
    ) -> Choice:
        """Choose for a new question: everybody where it must be, or none is known to answer.

        ``only``: the server that is to answer it; the others are asked if it is repeated.
        """
        settings = self._settings
        if only is not None:
            return Choice((self._servers.get(only),), None)
        self._budget = min(settings.hedge_burst, self._budget + settings.hedge_share)
        best = self._servers.best(now)
        if everybody or best is None or len(self._servers.all()) == 1:
            return Choice(self._servers.all(), None)
        extra = settings.hedge_refresh_s if refresh else 0.0
        return Choice((best,), now + self._patience(now) + extra)

    def _patience(self, now: float) -> float:
        """Return after how long an answer is late: when one of any server would have been.

        What is known of the one that is asked may have been stretched by its last slow answers.
        """
        known = (one.info.name for one in self._servers.all() if one.rtt.smoothed is not None)
        answering = (name for name in known if not self._servers.is_silent(now, name))
        return min(map(self._servers.patience, answering))

    def take(self, now: float, asked: set[str]) -> bool:
        """Take one hedge of the budget; it is free where a server that was asked is in doubt."""
        if any(self._servers.is_doubtful(now, name) for name in asked):
            return True
        if self._budget < 1:
            return False
        self._budget -= 1
        return True
