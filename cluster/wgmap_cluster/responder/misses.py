"""Agents that asked for an EID without a mapping lately: they are told when one appears."""

from collections import OrderedDict
from typing import TypeAlias

from wgmap_cluster.responder.mappings import Place
from wgmap_cluster.responder.space import holds

KEPT_S = 60.0  # the TTL of a negative answer
_Address: TypeAlias = tuple[int, bytes]  # the instance, and the address in it


class Misses:
    """At most ``most`` addresses, with at most ``most_each`` agents; the oldest makes room.

    Of one agent there are ``most_own``: who asks for all the world displaces what it asked itself.
    """

    def __init__(self, most: int = 4096, most_each: int = 64, most_own: int = 64) -> None:
        self._most = most
        self._most_each = most_each
        self._most_own = most_own
        self._agents: OrderedDict[_Address, dict[str, float]] = OrderedDict()
        self._own: dict[str, OrderedDict[_Address, None]] = {}

    def add(self, instance: int, address: bytes, agent: str, now: float) -> None:
        """Note that an agent was told that nothing is known of an address."""
        key = instance, address
        if key in self._own.get(agent, ()):
            self._drop(key, agent)
        agents = self._agents.get(key, {})
        if len(agents) >= self._most_each:
            self._drop(key, next(iter(agents)))
        own = self._own.get(agent, ())
        if len(own) >= self._most_own:
            self._drop(next(iter(own)), agent)
        self._agents.setdefault(key, {})[agent] = now + KEPT_S
        self._agents.move_to_end(key)
        self._own.setdefault(agent, OrderedDict())[key] = None
        if len(self._agents) > self._most:
            self._take(next(iter(self._agents)))

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
            until = self._take(key)
            told.update({agent: None for agent in until if until[agent] >= now})
        return list(told)

    def _take(self, key: _Address) -> dict[str, float]:
        taken = dict(self._agents.get(key, {}))
        for agent in taken:
            self._drop(key, agent)
        return taken

    def _drop(self, key: _Address, agent: str) -> None:
        agents, own = self._agents[key], self._own[agent]
        del agents[agent], own[key]
        if not agents:
            del self._agents[key]
        if not own:
            del self._own[agent]
