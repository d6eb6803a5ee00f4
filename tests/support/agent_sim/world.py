"""Virtual time and an underlay: a heap of events, and datagrams that take their time or are lost.

Everything is decided by the seed; two runs with one seed do the same.
"""

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from wgmap.addresses import Endpoint

WALL = 1_700_000_000.0  # wall time when virtual time is 0


@dataclass(slots=True)
class Datagram:
    """What crosses the underlay. ``kind`` is what faults go by, e.g. ``data.init``."""

    kind: str
    source: Endpoint
    destination: Endpoint
    content: Any


class Receiver(Protocol):
    """Something bound to an underlay endpoint."""

    def receive(self, source: Endpoint, content: Any) -> None:
        """Take in a datagram's content."""


@dataclass(slots=True)
class Fault:
    """Something that happens to datagrams of one kind.

    ``first``/``count``: which of those that match, in the order of their sending.
    """

    kind: str
    source: str | None = None  # a host's name
    destination: str | None = None
    first: int = 0
    count: int = 1
    drop: bool = True
    late: float = 0.0
    twice: bool = False  # it arrives two times at once
    seen: int = field(default=0, init=False)

    def matches(self, kind: str, source: str | None, destination: str | None) -> bool:
        """Count a datagram that matches, and say whether it is one of those meant."""
        if not kind.startswith(self.kind):
            return False
        if self.source not in (None, source) or self.destination not in (None, destination):
            return False
        self.seen += 1
        return self.first < self.seen <= self.first + self.count


class World:
    """The clock, the underlay and its faults."""

    def __init__(self, seed: int = 0, delay: float = 0.0) -> None:
        self.now = 0.0
        self.rng = random.Random(seed)
        self.delay = delay
        self.delays: dict[frozenset[str], float] = {}  # between two hosts, where it is another
        self.jitter = 0.0  # at most so much more, another for each datagram: order is lost
        self.loss = 0.0
        self.faults: list[Fault] = []
        self.log: list[str] = []
        self.logging = True  # off for fleets
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._bound: dict[Endpoint, tuple[str, Receiver]] = {}

    @property
    def wall(self) -> float:
        """Seconds since 1970."""
        return WALL + self.now

    def bind(self, endpoint: Endpoint, name: str, receiver: Receiver) -> None:
        """Let a receiver own an endpoint."""
        self._bound[endpoint] = (name, receiver)

    def unbind(self, endpoint: Endpoint) -> None:
        """Take an endpoint away."""
        self._bound.pop(endpoint, None)

    def after(self, delay: float, call: Callable[[], None]) -> None:
        """Call something later."""
        heapq.heappush(self._events, (self.now + delay, next(self._numbers), call))

    def send(self, name: str, datagram: Datagram) -> None:
        """Send over the underlay; ``name``: the sending host."""
        bound = self._bound.get(datagram.destination)
        destination = None if bound is None else bound[0]
        way = self.delays.get(frozenset((name, destination or "")), self.delay)
        delay = way + self.jitter * self.rng.random()
        copies = 1
        for fault in self.faults:
            if fault.matches(datagram.kind, name, destination):
                if fault.drop:
                    self.note(f"{name}->{destination} {datagram.kind} LOST")
                    return
                delay += fault.late
                copies += fault.twice
        if self.loss and self.rng.random() < self.loss:
            self.note(f"{name}->{destination} {datagram.kind} lost")
            return
        self.note(f"{name}->{destination} {datagram.kind}")
        for _ in range(copies):
            self.after(delay, lambda: self._arrive(datagram))

    def note(self, text: str) -> None:
        """Write a line into the log that a failing test shows."""
        if self.logging:
            self.log.append(f"{self.now * 1e3:9.1f} ms  {text}")

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Run for so long, or until something holds; returns whether it held."""
        end = self.now + seconds
        while not until():
            if not self._events or self._events[0][0] > end:
                self.now = end
                return until()
            at, _, call = heapq.heappop(self._events)
            self.now = max(self.now, at)
            call()
        return True

    def _arrive(self, datagram: Datagram) -> None:
        bound = self._bound.get(datagram.destination)
        if bound is not None:
            bound[1].receive(datagram.source, datagram.content)
