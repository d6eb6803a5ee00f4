"""Endpoints that change: our own, a peer's, or both at once (the double jump).

A peer is in recovery while it may have moved, or may not know that we did: it is asked for again
(a refresh: never older than the last acknowledged registration) and poked, at growing intervals,
until something authenticated comes from it. WireGuard learns roamed endpoints by itself, so
control data replaces one only when the advertised endpoint changed, or when a sign of life that
was asked for did not come.
"""

import random
from dataclasses import dataclass, replace
from enum import Enum, auto

from wgmap_agent.engine.idle import Activity
from wgmap_agent.engine.settings import Settings


@dataclass(slots=True)
class Recovery:
    """A peer that is looked for."""

    since: float | None  # what is heard after it is a sign of life; None: from the next reading on
    next_at: float
    tries: int = 0
    answered: bool = False  # a server in touch with the quorum said that it is registered
    own_move: bool = False  # the first try is no answer to anything that it did

    @property
    def unanswered(self) -> bool:
        """Say whether a sign of life was asked for, and did not come in its time."""
        return self.tries > self.own_move


class Suspicion(Enum):
    """What is to be done about a peer that stood."""

    NONE = auto()
    PROBE = auto()  # ask it for a sign of life inside the tunnel: one-way flows look the same
    LOOK_FOR = auto()  # ask the servers where it is, and poke it
    FOUND = auto()  # it was in recovery and was heard


class Budget:
    """So many a second and so many at once, of all peers together: a token bucket."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s, self._burst = per_s, burst
        self._tokens = burst
        self._at: float | None = None

    def allows(self, now: float) -> bool:
        """Take one; False where none is left."""
        passed = 0.0 if self._at is None else now - self._at
        self._tokens, self._at = min(self._burst, self._tokens + passed * self._per_s), now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Moves:
    """Decides about peers that stood."""

    def __init__(self, settings: Settings, rng: random.Random) -> None:
        self._settings = settings
        self._rng = rng
        self._budget = Budget(settings.looks_per_s, settings.looks_burst)

    def own_move(self, now: float, peers: int) -> Recovery:
        """Begin with one of so many peers after our own addresses changed.

        What it sent before shows in the next reading only, and is no sign of life.
        """
        spread = self._settings.recovery_spread_s * peers
        return Recovery(None, now + spread * self._rng.random(), own_move=True)

    def judge(
        self, now: float, rtt: float, activity: Activity, recovery: Recovery | None
    ) -> tuple[Suspicion, Recovery | None]:
        """Say what to do about a peer, and what its recovery is from now on."""
        if recovery is not None:
            return self._go_on(now, rtt, activity, recovery)
        if now < self.suspect_at(activity):
            return Suspicion.NONE, None
        wait = self._settings.probe_wait_s + 2 * rtt
        return Suspicion.PROBE, Recovery(now, now + wait)

    def suspect_at(self, activity: Activity) -> float:
        """Return when a peer that data goes to is silent for too long; infinite: it is heard."""
        since = activity.unanswered_since
        return float("inf") if since is None else since + self._settings.silent_s

    def _go_on(
        self, now: float, rtt: float, activity: Activity, recovery: Recovery
    ) -> tuple[Suspicion, Recovery | None]:
        if recovery.since is not None and activity.heard_at > recovery.since:
            return Suspicion.FOUND, None
        since = now if recovery.since is None else recovery.since
        if now < recovery.next_at:
            return Suspicion.NONE, replace(recovery, since=since)
        if not self._budget.allows(now):
            again = now + self._settings.recovery_first_s * self._rng.uniform(0.5, 1.5)
            return Suspicion.NONE, replace(recovery, since=since, next_at=again)
        tries = recovery.tries + 1
        wait = (self._settings.recovery_first_s + 2 * rtt) * 2 ** min(tries - 1, 10)
        wait = min(wait, self._settings.recovery_cap_s) * self._rng.uniform(0.9, 1.1)
        return Suspicion.LOOK_FOR, replace(recovery, since=since, next_at=now + wait, tries=tries)
