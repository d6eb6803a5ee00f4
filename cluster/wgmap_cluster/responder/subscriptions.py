"""Who was told of whom, and wants to hear of changes: soft state, for the TTL of what was told.

Of the million that there may be nearly all are the only one of their subject, so each is one tuple,
and only where a subject has several they stand in a table of their own.
"""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

from wgmap_cluster.responder.effects import SERVER_SET

KEPT_S = 0.5  # longer than asked for: who asks again within that is noted already
SAME_S = 0.01  # times so near are one: a number takes memory
TIDIED = 4  # looked at in one go where too many are over
RECENT = 4096  # of peers that are known by when they were told


class Subscription(NamedTuple):
    """One agent was told of one subject, and is told of its changes until a time."""

    subject: str
    agent: str
    at: float
    until: float


_Several: TypeAlias = dict[str, Subscription]  # by agent, the oldest first


class Subscriptions:
    """For each subject (a peer, or the server set) the agents that hold its mapping.

    At most ``most_each`` agents a subject and ``most`` in all: the oldest makes room for a new
    one and counts as ``dropped``. Nothing here outlives the process; agents revalidate.
    """

    def __init__(self, most_each: int, most: int) -> None:
        self._most_each = most_each
        self._most = most
        self._held: dict[str, Subscription | _Several] = {}
        self._order: deque[Subscription] = deque()  # by age, with some that were renewed or ended
        self._recent: deque[Subscription] = deque(maxlen=RECENT)
        self._count = 0
        self._at = self._until = 0.0  # the last ones: one object for all that share it
        self.dropped = 0

    def __len__(self) -> int:
        return self._count

    def add(self, subject: str, agent: str, now: float, until: float) -> None:
        """Note that an agent is told of a subject now; it is told of changes until then.

        Or KEPT_S longer.
        """
        held = self._held.get(subject)
        if held is not None:
            if isinstance(held, dict):
                known = held.get(agent)
            else:
                known = held if held.agent == agent else None
            if known is not None:
                if known.until >= until:
                    return
                self._remove(known)
        self._make_room(subject)
        if not self._at <= now < self._at + SAME_S:
            self._at = now
        if not until <= self._until < until + KEPT_S:
            self._until = until + KEPT_S
        self._put(Subscription(subject, agent, self._at, self._until))

    def of(self, subject: str, now: float) -> list[str]:
        """Return the agents that are told of a subject; forgets those whose time is over."""
        for one in self._all(subject):
            if one.until < now:
                self._remove(one)
        return [one.agent for one in self._all(subject)]

    def told(self, subject: str, agent: str, now: float) -> Subscription | None:
        """Return when an agent was told of a subject last; None: it was not, or that is over."""
        held = self._held.get(subject)
        one = held.get(agent) if isinstance(held, dict) else held
        return one if one is not None and one.agent == agent and one.until >= now else None

    def recent(self) -> Iterator[tuple[str, str]]:
        """Yield who was told last: (subject, agent), at most RECENT, perhaps some that are over."""
        return (one[:2] for one in reversed(self._recent) if self._is_held(one))

    def recent_of(self, subject: str) -> Iterator[tuple[str, str]]:
        """Yield who was told of a subject, as recent() does."""
        return (one[:2] for one in reversed(self._all(subject)))

    def subjects(self) -> list[str]:
        """Return everybody whom some agent is told of."""
        return list(self._held)

    def sweep(self, now: float, count: int) -> None:
        """Look at the ``count`` oldest and forget those whose time is over."""
        for _ in range(min(count, len(self._order))):
            one = self._order.popleft()
            if not self._is_held(one):
                continue
            if one.until < now:
                self._remove(one)
            else:
                self._order.append(one)

    def rename(self, old: str, new: str) -> None:
        """Have a peer go on under another name, as subject and as agent."""
        for one in [one for one in self._order if old in one[:2] and self._is_held(one)]:
            self._remove(one)
            subject = new if one.subject == old else one.subject
            self.add(subject, new if one.agent == old else one.agent, one.at, one.until - KEPT_S)

    def _all(self, subject: str) -> list[Subscription]:
        held = self._held.get(subject)
        if held is None:
            return []
        return list(held.values()) if isinstance(held, dict) else [held]

    def _is_held(self, one: Subscription) -> bool:
        held = self._held.get(one.subject)
        return (held.get(one.agent) if isinstance(held, dict) else held) is one

    def _make_room(self, subject: str) -> None:
        own = self._held.get(subject)
        if isinstance(own, dict) and len(own) >= self._most_each:
            self._remove(next(iter(own.values())))
            self.dropped += 1
        elif self._count >= self._most:
            self._remove(next(one for one in iter(self._order.popleft, None) if self._is_held(one)))
            self.dropped += 1

    def _put(self, one: Subscription) -> None:
        held = self._held.get(one.subject)
        if held is None:
            self._held[one.subject] = one
        elif isinstance(held, dict):
            held[one.agent] = one
        else:
            self._held[one.subject] = {held.agent: held, one.agent: one}
        self._count += 1
        self._order.append(one)
        if one.subject != SERVER_SET:
            self._recent.append(one)
        if len(self._order) > 2 * self._count + 64:
            self._tidy()

    def _tidy(self) -> None:
        """Let go of a few that were renewed or ended: all at once would stop everybody's answers.

        More than half are such, so the order grows shorter by it, or is soon turned to where they
        are.
        """
        for _ in range(TIDIED):
            one = self._order.popleft()
            if self._is_held(one):
                self._order.append(one)

    def _remove(self, one: Subscription) -> None:
        held = self._held[one.subject]
        if isinstance(held, dict):
            del held[one.agent]
        if not isinstance(held, dict) or not held:
            del self._held[one.subject]
        self._count -= 1
