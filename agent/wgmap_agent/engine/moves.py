"""Endpoints that change: our own, a peer's, or both at once (the double jump).

A peer is in recovery while it may have moved, or may not know that we did: it is asked for again
(a refresh: never older than the last acknowledged registration) and poked, at growing intervals,
until something authenticated comes from it. WireGuard learns roamed endpoints by itself, so
control data replaces one only when the advertised endpoint changed, or in recovery.
"""

import random
from dataclasses import dataclass
from enum import Enum, auto

from wgmap_agent.engine.idle import Activity
from wgmap_agent.engine.settings import Settings


@dataclass(slots=True)
class Recovery:
    """A peer that is looked for."""

    since: float
    next_at: float
    tries: int = 0
    answered: bool = False  # a server in touch with the quorum said that it is registered


class Suspicion(Enum):
    """What is to be done about a peer that stood."""

    NONE = auto()
    PROBE = auto()  # ask it for a sign of life inside the tunnel: one-way flows look the same
    LOOK_FOR = auto()  # ask the servers where it is, and poke it
    FOUND = auto()  # it was in recovery and was heard


class Moves:
    """Decides about peers that stood."""

    def __init__(self, settings: Settings, rng: random.Random) -> None:
        self._settings = settings
        self._rng = rng

    def own_move(self, now: float, peers: int) -> Recovery:
        """Begin with one of so many peers after our own addresses changed."""
        return Recovery(now, now + self._settings.recovery_spread_s * peers * self._rng.random())

    def judge(
        self, now: float, rtt: float, activity: Activity, recovery: Recovery | None
    ) -> tuple[Suspicion, Recovery | None]:
        """Say what to do about a peer, and what its recovery is from now on."""
        if recovery is not None:
            return self._go_on(now, rtt, activity, recovery)
        since = activity.unanswered_since
        if since is None or now - since < self._settings.silent_s:
            return Suspicion.NONE, None
        wait = self._settings.probe_wait_s + 2 * rtt
        return Suspicion.PROBE, Recovery(now, now + wait)

    def _go_on(
        self, now: float, rtt: float, activity: Activity, recovery: Recovery
    ) -> tuple[Suspicion, Recovery | None]:
        if activity.heard_at > recovery.since:
            return Suspicion.FOUND, None
        if now < recovery.next_at:
            return Suspicion.NONE, recovery
        tries = recovery.tries + 1
        wait = (self._settings.recovery_first_s + 2 * rtt) * 2 ** min(tries - 1, 10)
        wait = min(wait, self._settings.recovery_cap_s) * self._rng.uniform(0.9, 1.1)
        return Suspicion.LOOK_FOR, Recovery(recovery.since, now + wait, tries, recovery.answered)
