"""Who was told of whom, and wants to hear of changes: soft state, for the TTL of what was told."""

from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from wgmap_cluster.responder.follower import SERVER_SET

RECENT = 4096  # pairs of peers that are known by when they were told


class Told(NamedTuple):
    """That an agent was told of a subject, and when."""

    subject: str
    agent: str
    at: float


class Subscriptions:
    """For each subject (a peer, or the server set) the agents that hold its mapping.

    At most ``most_each`` agents a subject and ``most`` in all: the oldest makes room for a new
    one and counts as ``dropped``. Nothing here outlives the process; agents revalidate.
    """

    def __init__(self, most_each: int, most: int) -> None:
        self._most_each = most_each
        self._most = most
        self._agents: dict[str, OrderedDict[str, float]] = {}
        self._order: OrderedDict[tuple[str, str], float] = OrderedDict()  # and when it was told
        self._recent: OrderedDict[tuple[str, str], None] = OrderedDict()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._order)

    def add(self, subject: str, agent: str, now: float, until: float) -> None:
        """Note that an agent is told of a subject now; it is told of changes until then."""
        agents = self._agents.setdefault(subject, OrderedDict())
        if agent not in agents:
            self._make_room(agents, subject)
        agents = self._agents.setdefault(subject, agents)
        agents[agent] = until
        agents.move_to_end(agent)
        pair = subject, agent
        self._order[pair] = now
        self._order.move_to_end(pair)
        if subject != SERVER_SET:
            self._remember(pair)

    def _remember(self, pair: tuple[str, str]) -> None:
        self._recent[pair] = None
        self._recent.move_to_end(pair)
        if len(self._recent) > RECENT:
            self._recent.popitem(last=False)

    def of(self, subject: str, now: float) -> list[str]:
        """Return the agents that are told of a subject; forgets those whose time is over."""
        until = self._agents.get(subject, OrderedDict())
        for agent in [agent for agent in until if until[agent] < now]:
            self._remove(subject, agent)
        return list(self._agents.get(subject, ()))

    def told(self, subject: str, agent: str, now: float) -> Told | None:
        """Return when an agent was told of a subject last; None: it was not, or that is over."""
        at = self._order.get((subject, agent))
        if at is None or self._agents[subject][agent] < now:
            return None
        return Told(subject, agent, at)

    def recent(self) -> Iterator[tuple[str, str]]:
        """Yield who was told last: (subject, agent), at most RECENT, perhaps some that are over."""
        return reversed(self._recent)

    def recent_of(self, subject: str) -> Iterator[tuple[str, str]]:
        """Yield who was told of a subject, as recent() does."""
        return ((subject, agent) for agent in reversed(self._agents.get(subject, OrderedDict())))

    def subjects(self) -> list[str]:
        """Return everybody whom some agent is told of."""
        return list(self._agents)

    def sweep(self, now: float, count: int) -> None:
        """Look at the ``count`` oldest and forget those whose time is over."""
        for subject, agent in list(islice(self._order, count)):
            if self._agents[subject][agent] < now:
                self._remove(subject, agent)
            else:
                self._order.move_to_end((subject, agent))

    def rename(self, old: str, new: str) -> None:
        """Have a peer go on under another name, as subject and as agent."""
        for subject, agent in [pair for pair in self._order if old in pair]:
            until, at = self._agents[subject][agent], self._order[subject, agent]
            self._remove(subject, agent)
            self.add(new if subject == old else subject, new if agent == old else agent, at, until)

    def _make_room(self, agents: OrderedDict[str, float], subject: str) -> None:
        if len(agents) >= self._most_each:
            self._remove(subject, next(iter(agents)))
            self.dropped += 1
        elif len(self._order) >= self._most:
            self._remove(*next(iter(self._order)))
            self.dropped += 1

    def _remove(self, subject: str, agent: str) -> None:
        del self._order[subject, agent]
        self._recent.pop((subject, agent), None)
        agents = self._agents[subject]
        del agents[agent]
        if not agents:
            del self._agents[subject]
