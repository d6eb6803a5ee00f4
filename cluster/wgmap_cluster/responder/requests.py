"""Map-Requests: answered at once, or a refresh behind its barrier and then in its turn.

The usual request is answered without the codec (``quick``): most are of that one shape, a flood
above all.
"""

from collections import Counter

from wgmap.lisp.codec import decode
from wgmap.lisp.mark import TRACED, Mark
from wgmap.lisp.messages import Encapsulated, MapRequest, XtrId
from wgmap_cluster.feed import Barrier, Source
from wgmap_cluster.responder import quick
from wgmap_cluster.responder.actions import Action, Send, Tell
from wgmap_cluster.responder.announcer import Announcer
from wgmap_cluster.responder.answers import Answers
from wgmap_cluster.responder.follower import Follower
from wgmap_cluster.responder.lookup import Asked, Lookup, Quick
from wgmap_cluster.responder.mappings import Peer
from wgmap_cluster.responder.quick import Question
from wgmap_cluster.responder.refreshes import Refreshes
from wgmap_cluster.responder.traces import Traces

MAX_RECORDS = 32  # of one request


class RefusedError(Exception):
    """A datagram is not served; the text is the counter's name."""


class Requests:
    """Decides on requests of enrolled peers."""

    def __init__(
        self,
        follower: Follower,
        answers: Answers,
        announcer: Announcer,
        patience_s: float,
        counters: Counter[str],
    ) -> None:
        """``patience_s``: see Refreshes."""
        self._follower = follower
        self._lookup = Lookup(follower, answers)
        self._announcer = announcer
        self._refreshes = Refreshes(patience_s)
        self._traces = Traces()
        self._counters = counters
        self.attached = False  # to a replica

    def serve(
        self, peer: Peer, data: bytes, source: Source, now: float, until: float | None
    ) -> list[Action]:
        """Serve a request; with ``until`` it is a refresh whose barrier came (see Again).

        Raises RefusedError and CodecError.
        """
        usual = quick.parse(data) if peer.kind.instance == 0 else None
        asked = usual or self._read(peer, data, source)
        if until is None:
            self._counters["request.received"] += 1
            if asked.refresh:
                return self._refresh(data, source, now)
        elif now >= until:
            self._counters["refresh.late"] += 1
            return []
        fresh = until is not None or self._follower.is_fresh(now)
        if isinstance(asked, Asked):
            return self._answer(asked, now, fresh=fresh)
        answer = self._lookup.quickly(peer, asked, fresh=fresh)
        if answer is None:
            return self._answer(self._read(peer, data, source), now, fresh=fresh)
        return self._answer_quickly(asked, answer, (peer, source), now, fresh=fresh)

    def _read(self, peer: Peer, data: bytes, source: Source) -> Asked:
        match decode(data):
            case MapRequest() as request:
                asked = Asked(peer, source, request)
            case Encapsulated(source_port=port, message=request):
                # The outer source is who asks (and proved it); the inner port is where it listens.
                asked = Asked(peer, (source[0], port), request)
            case _:
                raise AssertionError("only requests are read here")
        self._check(asked)
        return asked

    def _check(self, asked: Asked) -> None:
        request = asked.request
        instance = asked.requester.kind.instance
        refusals = (
            (request.probe, "probe"),
            (request.smr, "smr"),
            (request.dont_map_reply, "no_reply_wanted"),
            (not request.records, "no_record"),
            (len(request.records) > MAX_RECORDS, "too_many_records"),
            (any(r.eid.instance != instance for r in request.records), "foreign_instance"),
        )
        for refused, reason in refusals:
            if refused:
                raise RefusedError(reason)

    # ----------------------------------------------------------------------------- answering

    def _answer_quickly(
        self, asked: Question, answer: Quick, at: tuple[Peer, Source], now: float, *, fresh: bool
    ) -> list[Action]:
        (peer, source), (datagram, owner, ttl_min) = at, answer
        if owner is None:
            self._announcer.missed(peer.name, 0, asked.address, now)
            self._counters["answer.negative"] += 1
            pushes = []
        else:  # first: it has the longer way to go
            pushes = self._announcer.introduce(peer, owner, ttl_min, now)
        self._counters["answer.fresh" if fresh else "answer.stale"] += 1
        actions = [*pushes, Send(source, datagram)]
        return actions + self._announcer.compare(peer, asked.mark, now) if asked.mark else actions

    def _answer(self, asked: Asked, now: float, *, fresh: bool) -> list[Action]:
        found = self._lookup.answer(asked, fresh=fresh)
        actions: list[Action] = []
        for owner, ttl_min in found.owners.items():
            actions += self._announcer.introduce(asked.requester, owner, ttl_min, now)
        for instance, address in found.missed:
            self._announcer.missed(asked.requester.name, instance, address, now)
        if found.servers:
            self._announcer.asked_for_servers(asked.requester.name, now)
        self._counters["answer.fresh" if fresh else "answer.stale"] += 1
        self._counters["answer.negative"] += bool(found.missed)
        actions += [Send(asked.reply_to, datagram) for datagram in found.datagrams]
        said = mark(asked.request.xtr)
        if said and Mark.decode(said).since == TRACED:
            said = Mark.decode(said)._replace(since=0).encode()
            actions += self._trace(asked, actions, now)
        return actions + self._announcer.compare(asked.requester, said, now)

    def _trace(self, asked: Asked, answer: list[Action], now: float) -> list[Action]:
        if not asked.requester.kind.takes_keys:
            return []  # a plain LISP client with an identifier of its own
        self._counters["request.traced"] += 1
        return self._traces.begin(asked, self._follower.tables.index, answer, now)

    def acknowledged(self, nonce: int, address: str, now: float) -> list[Action]:
        """Report on what waited for a Map-Notify-Ack."""
        return self._traces.acknowledged(nonce, address, now)

    # ----------------------------------------------------------------------------- refreshes

    def _refresh(self, data: bytes, source: Source, now: float) -> list[Action]:
        if not self.attached:
            raise RefusedError("refresh_no_replica")
        if not self._refreshes.add(data, source):
            raise RefusedError("refresh_too_many")
        self._counters["refresh.received"] += 1
        return self._barrier(now)

    def _barrier(self, now: float) -> list[Action]:
        number = self._refreshes.barrier(now)
        return [] if number is None else [Tell(Barrier(number))]

    def barrier_done(self, number: int, now: float, *, ok: bool) -> list[Action]:
        """Have what waited for a barrier served, each in its turn."""
        done = self._refreshes.done(number)
        if not ok:
            self._counters["refresh.refused"] += len(done)
            done = []
        return [*done, *self._barrier(now)]

    def detached(self) -> None:
        """Forget what waits: the replica is gone."""
        self.attached = False
        self._counters["refresh.lost"] += self._refreshes.lost()

    def tick(self, now: float) -> list[Action]:
        """Give up what waited too long."""
        late = self._refreshes.give_up(now)
        self._counters["refresh.late"] += late
        reports = self._traces.give_up(now)
        return [*reports, *self._barrier(now)] if late else reports

    def next_due(self) -> float | None:
        """Return when tick() has something to do."""
        times = (self._refreshes.next_due(), self._traces.next_due())
        return min((at for at in times if at is not None), default=None)

    @property
    def waiting(self) -> int:
        """How many refreshes wait for a barrier."""
        return len(self._refreshes)


def mark(xtr: XtrId | None) -> bytes:
    """Return the mark in an I field; b"" without one."""
    return b"" if xtr is None else Mark.of(xtr).encode()
