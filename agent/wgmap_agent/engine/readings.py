"""When the WireGuard devices are read: one reading of a device at a time, and not too often.

A reading costs time in proportion to the peers of the device. On a busy machine most of what it
takes is waiting for the processor: that costs nobody anything, and is no reason to look seldom.
"""

from dataclasses import dataclass

from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.settings import Settings
from wgmap_agent.engine.types import Action, ReadPeers, Tunnel

LOST_S = 10.0  # a reading that was never answered is asked for again
# The pause after a reading, in multiples of what it took: of the whole device, and of a few peers.
# Those take us a fraction of the time, but the device tells of all its peers for them as well.
REST, REST_SOME = 4, 8
# The most that a reading costs, of itself and for each peer: some times what was measured
# (docs/evaluation/scale.md: 5,000 peers, all processes together, 20 us a peer).
COST_S, PEER_COST_S = 0.01, 60e-6
HURRY_S = 0.2


def cost_s(took: float, peers: int) -> float:
    """Bound what (seconds) a reading took by what one of a device with so many peers can cost."""
    return min(took, COST_S + PEER_COST_S * peers)


@dataclass(slots=True)
class Reading:
    """The readings of one device."""

    number: int = 0  # of the last one asked for
    asked_at: float | None = None  # one is under way
    not_before: float = 0.0
    took: float = 0.0  # what the last one of the whole device cost, at most
    peers: int = 0  # that it told of
    hurried_until: float = float("-inf")


class Readings:
    """The readings of both devices."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._readings = {tunnel: Reading() for tunnel in Tunnel}

    def number(self, tunnel: Tunnel) -> int:
        """Return the number of the last reading asked for.

        What was changed while the number is n shows first in reading n + 1.
        """
        return self._readings[tunnel].number

    def took(self, tunnel: Tunnel) -> float:
        """Return what (seconds) the last reading of the whole device cost."""
        return self._readings[tunnel].took

    def due(self, now: float, tunnel: Tunnel, wanted: float | None) -> list[Action]:
        """Ask for a reading of the whole device where one is wanted by now."""
        at = self.deadline(tunnel, wanted)
        return [self.ask(now, tunnel)] if at is not None and at <= now else []

    def ask(
        self, now: float, tunnel: Tunnel, keys: frozenset[PublicKey] | None = None
    ) -> ReadPeers:
        """Ask for a reading, of some peers or of the whole device."""
        reading = self._readings[tunnel]
        reading.number += 1
        reading.asked_at = now
        return ReadPeers(tunnel, keys)

    def not_before(self, tunnel: Tunnel) -> float | None:
        """Return before when none is asked for; None: one is under way."""
        reading = self._readings[tunnel]
        return reading.not_before if reading.asked_at is None else None

    def deadline(self, tunnel: Tunnel, wanted: float | None) -> float | None:
        """Return when ``due`` asks for a reading that is wanted at that time."""
        reading = self._readings[tunnel]
        if reading.asked_at is not None:
            return reading.asked_at + LOST_S
        return None if wanted is None else max(wanted, reading.not_before)

    def hurry(self, now: float, tunnel: Tunnel) -> None:
        """Have no pauses for a moment: something is just about to show."""
        reading = self._readings[tunnel]
        reading.hurried_until = now + HURRY_S
        reading.not_before = min(reading.not_before, now + self._settings.settle_s)

    def done(self, now: float, tunnel: Tunnel, peers: int | None = None) -> None:
        """Note that a reading came back, or failed.

        ``peers``: that one of the whole device told of; None: any other.
        """
        reading = self._readings[tunnel]
        reading.peers = reading.peers if peers is None else peers
        took = 0.0 if reading.asked_at is None else now - reading.asked_at
        cost = cost_s(took, reading.peers)
        reading.asked_at = None
        if peers is not None:
            reading.took = cost
        rest = (REST_SOME if peers is None else REST) * cost
        if now < reading.hurried_until:
            rest = 0.0
        reading.not_before = now + max(self._settings.poll_s, rest)
