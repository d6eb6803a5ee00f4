"""Registers as fast as one server takes them, so many at a time: each of another member."""

import asyncio
from collections import deque
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from results import quantile

from crowd.host import Host
from wgmap.clock import now
from wgmap.lisp.messages import MapNotify, MapReply
from wgmap_chaos.load.tunnel import Tunnel

AGAIN_S = 1.0  # without an answer: it was shed or lost, and an agent repeats it, too
GIVE_UP_S = 30.0
PARTS = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99, "max_ms": 1.0}


class Kind(StrEnum):
    """What is registered."""

    REPEATED = "repeated"  # in the words of before: it costs no log entry
    COMMITTED = "committed"  # a change
    MOVED = "moved"  # a change: the member is at another address from now on


class Registers:
    """One run: at one server, ``window`` at a time."""

    def __init__(self, hosts: Iterable[Host], server: str, window: int, kind: Kind) -> None:
        self._free = deque(hosts)
        self._server, self._window, self._kind = server, window, kind
        self._out: dict[Host, float] = {}  # since when it waits
        self._sent: dict[Host, float] = {}  # when it was said last
        self._took: list[float] = []
        self._ended = asyncio.Event()
        self._until = float("inf")
        self.repeated = 0

    async def run(self, seconds: float) -> dict[str, Any]:
        """Go on for so long, and wait for what is out then."""
        began = now()
        self._until = began + seconds
        for _ in range(min(self._window, len(self._free))):
            self._next()
        while not self._ended.is_set() and now() < self._until + GIVE_UP_S:
            try:
                await asyncio.wait_for(self._ended.wait(), AGAIN_S / 4)
            except TimeoutError:
                self._repeat()
        lost = len(self._out)
        for host in self._out:
            host.listener = None
        took = self._took or [float("nan")]
        percentiles = {name: quantile(took, part) * 1e3 for name, part in PARTS.items()}
        of = {"count": len(self._took), "repeated": self.repeated, "lost": lost}
        return {**of, "seconds": now() - began, **percentiles}

    def _next(self) -> None:
        host = self._free.popleft()
        self._out[host] = self._sent[host] = now()
        host.listener = self._heard
        if self._kind is Kind.MOVED:
            host.move()
        host.register(host.tunnel_to(self._server), fresh=self._kind is not Kind.REPEATED)

    def _heard(self, host: Host, _tunnel: Tunnel, message: MapReply | MapNotify) -> None:
        if isinstance(message, MapReply) or host not in self._out:
            return
        self._took.append(now() - self._out.pop(host))
        del self._sent[host]
        host.listener = None
        self._free.append(host)
        if now() < self._until:
            self._next()
        elif not self._out:
            self._ended.set()

    def _repeat(self) -> None:
        for host, at in list(self._sent.items()):
            if now() - at > AGAIN_S:
                self.repeated += 1
                self._sent[host] = now()
                host.register(host.tunnel_to(self._server))
