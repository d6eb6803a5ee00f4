"""Agents that asked for an EID without a mapping lately: they are told when one appears."""

from collections import OrderedDict

from wgmap_cluster.responder.space import holds
from wgmap_cluster.responder.table import Place

KEPT_S = 60.0  # the TTL of a negative answer


class Misses:
    """At most ``most`` addresses with at most ``most_each`` agents; the oldest makes room."""

    def __init__(self, most: int = 1024, most_each: int = 64) -> None:
        self._most = most
        self._most_each = most_each
        self._agents: OrderedDict[tuple[int, bytes], dict[str, float]] = OrderedDict()

    def add(self, instance: int, address: bytes, agent: str, now: float) -> None:
        """Note that an agent was told that nothing is known of an address."""
        agents = self._agents.setdefault((instance, address), {})
        agents.pop(agent, None)
        if len(agents) >= self._most_each:
            del agents[next(iter(agents))]
        agents[agent] = now + KEPT_S
        self._agents.move_to_end((instance, address))
        if len(self._agents) > self._most:
            self._agents.popitem(last=False)

    def take(self, place: Place, now: float) -> list[str]:
        """Return and forget the agents that missed what a new mapping holds."""
        length, address = place.prefix[0], place.prefix[1:]
        if length == 8 * len(address):  # most are hosts: no need to look at all
            found = [(place.instance, address)]
        else:
            found = [
                k for k in self._agents if k[0] == place.instance and holds(place.prefix, k[1])
            ]
        told: dict[str, None] = {}
        for key in found:
            until = self._agents.pop(key, {})
            told.update({agent: None for agent in until if until[agent] >= now})
        return list(told)
