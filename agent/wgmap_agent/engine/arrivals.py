"""Handshake initiations that came to the data port: so one that came too early is known.

WireGuard drops an initiation of a key that it does not know, without a word, and the other side
sends the next one 5 s later. That happens where the initiation overtakes the push that tells us
of its sender: the map server is as near to the sender as we are, or our own machine is busy. We
know then that no other initiation is under way, and may initiate at once.
"""

from wgmap.addresses import Endpoint

MAX_NOTED = 1024  # endpoints; the oldest makes room
# Less than any kick takes: an older one may have been followed by another that is under way.
RECENT_S = 0.2


class Arrivals:
    """When the last initiation came from each endpoint. Times are the engine's ``now``."""

    def __init__(self) -> None:
        self._came: dict[Endpoint, float] = {}

    def note(self, at: float, source: Endpoint) -> None:
        """Remember an initiation."""
        self._came.pop(source, None)
        while len(self._came) >= MAX_NOTED:
            del self._came[next(iter(self._came))]
        self._came[source] = at

    def forget(self, endpoint: Endpoint | None) -> None:
        """Forget what came from the endpoint of a peer that is removed: the device had it."""
        if endpoint is not None:
            self._came.pop(endpoint, None)

    def last(self, now: float, endpoint: Endpoint | None) -> float | None:
        """Return when an initiation came from here, if that was a moment ago."""
        came = None if endpoint is None else self._came.get(endpoint)
        return came if came is not None and now - came < RECENT_S else None
