"""Handshake messages that came to the data port, beside WireGuard, which does not tell of them.

WireGuard drops an initiation of a key that it does not know, without a word, and the other side
sends the next one 5 s later. That happens where the initiation overtakes the push that tells us
of its sender: the map server is as near to the sender as we are, or our own machine is busy. So
what came is kept for a moment, and given to WireGuard again once it knows the sender. One that it
had taken already is an old one to it; but not one that it is just about to take: with several
threads it may take that twice, answer it twice, and forget the session of its first answer, which
is the one that the sender uses. So one that came while the peer was being set waits for a moment.

And it is known when our own initiation was answered, long before the device is read: the tunnel
stands, so packets need us no more.
"""

from typing import TypeVar

from wgmap.addresses import Endpoint
from wgmap.wg.keys import PublicKey

T = TypeVar("T")
MAX_NOTED = 1024  # endpoints; the oldest makes room
# An older one may have been followed by a kick; then its answer means nothing to its sender.
RECENT_S = 0.5


class Arrivals:
    """When the last initiation came from each endpoint, and from where an answer is awaited.

    Times are the engine's ``now``.
    """

    def __init__(self) -> None:
        self._came: dict[Endpoint, tuple[float, bytes]] = {}
        self._awaited: dict[Endpoint, PublicKey] = {}

    def expect(self, endpoint: Endpoint | None, key: PublicKey) -> None:
        """Remember that a handshake with the peer of this key at this endpoint is to come."""
        if endpoint is not None:
            _remember(self._awaited, endpoint, key)

    def awaited(self, source: Endpoint) -> PublicKey | None:
        """Return whose a handshake message from here may be."""
        return self._awaited.get(source)

    def note(self, at: float, source: Endpoint, packet: bytes) -> None:
        """Remember an initiation."""
        _remember(self._came, source, (at, packet))

    def forget(self, endpoint: Endpoint | None) -> None:
        """Forget what came from the endpoint of a peer that is removed: the device had it."""
        if endpoint is not None:
            self._came.pop(endpoint, None)
            self._awaited.pop(endpoint, None)

    def since(self, at: float, source: Endpoint) -> bool:
        """Say whether an initiation came from here since then."""
        came = self._came.get(source)
        return came is not None and came[0] >= at

    def last(self, now: float, endpoint: Endpoint | None) -> tuple[float, bytes] | None:
        """Return when an initiation came from here, and it, if that was a moment ago."""
        came = None if endpoint is None else self._came.get(endpoint)
        return came if came is not None and now - came[0] < RECENT_S else None


def _remember(noted: dict[Endpoint, T], endpoint: Endpoint, what: T) -> None:
    noted.pop(endpoint, None)
    while len(noted) >= MAX_NOTED:
        del noted[next(iter(noted))]
    noted[endpoint] = what
