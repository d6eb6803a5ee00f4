"""Traced questions: every server is asked, and tells what became of it (``wgmap.lisp.mark``).

For ``wgmap-agent trace``. Nothing is installed by it, no preference or round trip is drawn from it,
and nothing is repeated: what does not come is what the operator wants to see.
"""

import random
from dataclasses import dataclass, replace

from wgmap.addresses import IPAddress, host_prefix
from wgmap.lisp.mark import TRACED, Report, marked
from wgmap.lisp.messages import MapNotify, MapReply
from wgmap_agent.engine.questions import Questions
from wgmap_agent.engine.servers import Servers
from wgmap_agent.engine.types import Action, Identity, Send

MAX_TRACES = 8  # the oldest makes room


@dataclass(frozen=True, slots=True)
class ServerTrace:
    """What one server made of a traced question; None: it did not, or not yet."""

    name: str
    asked_at: float
    answered_s: float | None = None
    fresh: bool | None = None  # it was in touch with the quorum
    report: Report | None = None

    @property
    def is_over(self) -> bool:
        """Say whether nothing more is to come."""
        return self.answered_s is not None and self.report is not None


class Traces:
    """The last traced questions."""

    def __init__(self, identity: Identity, servers: Servers, rng: random.Random) -> None:
        self._questions = Questions(identity)
        self._servers = servers
        self._rng = rng
        self._known: dict[IPAddress, dict[tuple[str, int], ServerTrace]] = {}

    def begin(self, now: float, eid: IPAddress) -> list[Action]:
        """Ask every server for an EID; what came of the last time is forgotten."""
        self._known.pop(eid, None)
        while len(self._known) >= MAX_TRACES:
            del self._known[next(iter(self._known))]
        nonce = self._rng.getrandbits(64)
        datagram = self._questions.write(host_prefix(eid), nonce)
        names = [server.info.name for server in self._servers.all()]
        self._known[eid] = {(name, nonce): ServerTrace(name, now) for name in names}
        return [
            Send(name, marked(datagram, self._servers.mark(name)._replace(since=TRACED)))
            for name in names
        ]

    def reply(self, now: float, server: str, reply: MapReply) -> bool:
        """Take in a Map-Reply; False where it answers no traced question."""
        for traced in self._known.values():
            known = traced.get((server, reply.nonce))
            if known is not None and known.answered_s is None:
                fresh = bool(reply.records) and all(one.authoritative for one in reply.records)
                took = now - known.asked_at
                traced[server, reply.nonce] = replace(known, answered_s=took, fresh=fresh)
                return True
        return False

    def notify(self, server: str, notify: MapNotify) -> bool:
        """Take in a Map-Notify; False where it is no report."""
        report = None if notify.xtr is None else Report.of(notify.xtr)
        if report is None:
            return False
        for traced in self._known.values():
            known = traced.get((server, notify.nonce))
            if known is not None:
                traced[server, notify.nonce] = replace(known, report=report)
        return True

    def get(self, eid: IPAddress) -> tuple[ServerTrace, ...]:
        """Return what is known by now of the last traced question for an EID."""
        return tuple(self._known.get(eid, {}).values())
