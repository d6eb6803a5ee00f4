"""Packets that wait for a tunnel.

When a destination's queue or the whole is full, the newest packet is dropped and counted: the
first packets of a flow are the ones that must not be lost.
"""

from wgmap.addresses import IPAddress
from wgmap_agent.engine.counters import Counters
from wgmap_agent.engine.settings import Settings


class Holding:
    """Held packets by destination, bounded for each and as a whole."""

    def __init__(self, settings: Settings, counters: Counters) -> None:
        self._settings = settings
        self._counters = counters
        self._packets: dict[IPAddress, list[bytes]] = {}
        self.total = 0

    @property
    def is_full(self) -> bool:
        """Whether there is no room for any packet."""
        return self.total >= self._settings.held_packets

    def hold(self, destination: IPAddress, packet: bytes) -> bool:
        """Keep a packet; False where it was dropped for want of room."""
        queue = self._packets.get(destination, [])
        if len(queue) >= self._settings.held_per_destination:
            self._counters.add("held.dropped_destination_full")
            return False
        if self.is_full:
            self._counters.add("held.dropped_all_full")
            return False
        queue.append(packet)
        self._packets[destination] = queue
        self.total += 1
        self._counters.add("held.packets")
        return True

    def packets(self, destination: IPAddress) -> tuple[bytes, ...]:
        """Return what is held for a destination; it stays held."""
        return tuple(self._packets.get(destination, ()))

    def take(self, destination: IPAddress) -> tuple[bytes, ...]:
        """Return what is held for a destination and let go of it."""
        packets = tuple(self._packets.pop(destination, ()))
        self.total -= len(packets)
        return packets

    def destinations(self) -> tuple[IPAddress, ...]:
        """Return for whom something is held."""
        return tuple(self._packets)
