"""Agents that asked for an EID without a mapping lately: they are told when one appears."""

from collections import OrderedDict

from wgmap_cluster.responder.space import holds
from wgmap_cluster.responder.table import Place

KEPT_S = 60.0  # the TTL of a negative answer


class Misses:
    """At most ``most`` of them; the oldest makes room."""

    def __init__(self, most: int = 1024) -> None:
        self._most = most
        self._until: OrderedDict[tuple[int, bytes, str], float] = OrderedDict()

    def add(self, instance: int, address: bytes, agent: str, now: float) -> None:
        """Note that an agent was told that nothing is known of an address."""
        if len(self._until) >= self._most:
            self._until.popitem(last=False)
        self._until[instance, address, agent] = now + KEPT_S
        self._until.move_to_end((instance, address, agent))

    def take(self, place: Place, now: float) -> list[str]:
        """Return and forget the agents that missed what a new mapping holds."""
        found = [
            key for key in self._until if key[0] == place.instance and holds(place.prefix, key[1])
        ]
        return [key[2] for key in found if self._until.pop(key) >= now]
