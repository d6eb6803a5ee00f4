"""Connections between simulated servers: late, cut in one direction, half open, sometimes wrong.

A connection is in order, as TCP is. With ``unruly`` set, frames also come twice and late, over the
wrong connection even, which the transport never does and the protocol must bear all the same.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from wgmap_cluster.raft.interface import Member

SILENCE_S = 1.5
Pair = tuple[str, str]


@dataclass(slots=True)
class _Frame:
    due: float
    data: bytes


@dataclass(slots=True)
class _Connection:
    """One TCP connection; each end closes by itself."""

    open: dict[str, bool]
    read_at: dict[str, float]
    queues: dict[Pair, deque[_Frame]]

    @classmethod
    def between(cls, one: str, two: str, time: float) -> "_Connection":
        queues: dict[Pair, deque[_Frame]] = {(one, two): deque(), (two, one): deque()}
        return cls({one: True, two: True}, {one: time, two: time}, queues)


@dataclass
class Network:
    """All connections. ``changed(server, other)`` is told of each one that opens or closes."""

    rng: Random
    names: list[str]
    changed: Callable[[str, str], None]
    deliver: Callable[[str, str, bytes], None]
    unruly: bool = False
    time: float = 0.0
    cuts: set[Pair] = field(default_factory=set)
    members: dict[str, frozenset[str]] = field(default_factory=dict)
    seed: int = 0
    _rngs: dict[Pair, Random] = field(default_factory=dict)
    _connections: dict[frozenset[str], _Connection] = field(default_factory=dict)
    _strays: list[tuple[float, str, str, bytes]] = field(default_factory=list)

    # As the servers see it.
    def connected(self, server: str, other: str) -> bool:
        connection = self._connections.get(frozenset((server, other)))
        return connection is not None and connection.open[server]

    def send(self, server: str, other: str, data: bytes) -> None:
        connection = self._connections.get(frozenset((server, other)))
        if connection is None or not connection.open[server]:
            return
        queue = connection.queues[server, other]
        rng = self._link_rng(server, other)
        due = self.time + rng.uniform(0, 0.01)
        queue.append(_Frame(max(due, queue[-1].due if queue else 0.0), data))
        if self.unruly and rng.random() < 0.02:
            self._strays.append((due + rng.uniform(0, 1.5), server, other, data))

    def _link_rng(self, server: str, other: str) -> Random:
        """One for each direction: the library sends in the order of a set, which varies."""
        if (server, other) not in self._rngs:
            self._rngs[server, other] = Random(f"{self.seed} {server} {other}")
        return self._rngs[server, other]

    def backlog(self, server: str, other: str) -> int:
        connection = self._connections.get(frozenset((server, other)))
        if connection is None:
            return 0
        return sum(len(frame.data) for frame in connection.queues[server, other])

    # As the world drives it.
    def step(self, time: float, up: set[str]) -> None:
        self.time = time
        for index, one in enumerate(self.names):
            for two in self.names[index + 1 :]:
                self._step_pair(one, two, up)

    def _step_pair(self, one: str, two: str, up: set[str]) -> None:
        pair = frozenset((one, two))
        connection = self._connections.get(pair)
        if connection is not None:
            self._close_silent(connection, one, two)
            if not any(connection.open.values()):
                del self._connections[pair]
                connection = None
        whole = not {(one, two), (two, one)} & self.cuts and {one, two} <= up
        wanted = two in self.members.get(one, ()) and one in self.members.get(two, ())
        half_open = connection is not None and not all(connection.open.values())
        if (connection is None or half_open) and whole and wanted and self.rng.random() < 0.15:
            self._connect(one, two)

    def _close_silent(self, connection: _Connection, one: str, two: str) -> None:
        for server, other in ((one, two), (two, one)):
            if connection.open[server] and self.time - connection.read_at[server] > SILENCE_S:
                self.close(server, other)

    def _connect(self, one: str, two: str) -> None:
        for server, other in ((one, two), (two, one)):
            if self.connected(server, other):  # the new one replaces what is half open
                self.close(server, other)
        self._connections[frozenset((one, two))] = _Connection.between(one, two, self.time)
        self.changed(one, two)
        self.changed(two, one)

    def close(self, server: str, other: str) -> None:
        """One end closes; the other one learns at once, or by silence."""
        connection = self._connections.get(frozenset((server, other)))
        if connection is None or not connection.open[server]:
            return
        connection.open[server] = False
        for queue in connection.queues.values():
            queue.clear()
        self.changed(server, other)
        if connection.open[other] and (server, other) not in self.cuts and self.rng.random() < 0.5:
            connection.open[other] = False
            self.changed(other, server)

    def crash(self, server: str) -> None:
        for other in self.names:
            if other != server:
                self.close(server, other)

    def set_members(self, server: str, members: tuple[Member, ...]) -> None:
        self.members[server] = frozenset(member.name for member in members)
        for other in self.names:
            if other != server and other not in self.members[server]:
                self.close(server, other)

    def deliver_to(self, server: str) -> None:
        """Hand over what has arrived."""
        for other in self.names:
            connection = self._connections.get(frozenset((server, other)))
            if other == server or connection is None or not connection.open[server]:
                continue
            if (other, server) in self.cuts:
                continue
            self._deliver_queue(connection, other, server)
        due = sorted(s for s in self._strays if s[2] == server and s[0] <= self.time)
        for stray in due:
            self._strays.remove(stray)
            self.deliver(server, stray[1], stray[3])

    def _deliver_queue(self, connection: _Connection, other: str, server: str) -> None:
        queue = connection.queues[other, server]
        while queue and queue[0].due <= self.time and connection.open[server]:
            connection.read_at[server] = self.time
            self.deliver(server, other, queue.popleft().data)
