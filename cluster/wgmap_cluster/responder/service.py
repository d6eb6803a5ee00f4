"""The map service: datagrams and the replica's stream in, datagrams out. Pure, bounded.

Everything that is refused is counted under a reason; nothing that an agent sends raises.
"""

import random
from collections import Counter
from dataclasses import dataclass

from wgmap.lisp.codec import decode
from wgmap.lisp.mark import MARK_BYTES, TRACED, Mark
from wgmap.lisp.messages import CodecError, Encapsulated, MapNotifyAck, MapRequest, XtrId
from wgmap.metrics.families import FINE_S, Histogram
from wgmap_cluster.feed import (
    Answer,
    Attach,
    Barrier,
    BarrierDone,
    Changes,
    Forward,
    Lease,
    ResponderNote,
    Rows,
    Source,
    TableBegin,
    TableEnd,
    ToResponder,
)
from wgmap_cluster.responder.actions import Action, Send, Tell
from wgmap_cluster.responder.announcer import Announcer, PushSettings
from wgmap_cluster.responder.answers import Answers
from wgmap_cluster.responder.follower import Deferred, Effects, Follower, compare
from wgmap_cluster.responder.heard import Heard
from wgmap_cluster.responder.limits import Limit
from wgmap_cluster.responder.lookup import Asked, Lookup
from wgmap_cluster.responder.refreshes import Refreshes
from wgmap_cluster.responder.traces import Traces

MAX_DATAGRAM = 16 * 1024
MAX_REQUEST_RECORDS = 32
NOTE_EVERY_S = 1.0
_MAP_REGISTER = 3  # the type in the first four bits
_REGISTER_I = 0x02  # in the first byte: an I field is the end of the datagram
_UNAUTHENTICATED = bytes(4)  # key id, algorithm and length where the tunnel is the proof
_ANYBODY = ""  # the limit that all who are not enrolled share


@dataclass(frozen=True, slots=True)
class Settings:
    """What the service does not learn from the replica: rates a second and bursts."""

    pushes: PushSettings
    requests: tuple[float, int] | None = (2000.0, 4000)  # of each peer; None: no limit
    registers: tuple[float, int] | None = (50.0, 200)  # of each peer; None: no limit


class _RefusedError(Exception):
    """A datagram is not served; the text is the counter's name."""


class Service:
    """One responder's decisions."""

    def __init__(self, settings: Settings, rng: random.Random) -> None:
        self.counters: Counter[str] = Counter()
        self._follower = Follower()
        self._answers = Answers(self._follower)
        self._lookup = Lookup(self._follower, self._answers)
        self._announcer = Announcer(
            self._follower, self._answers, settings.pushes, rng, self.counters
        )
        self._refreshes: Refreshes[Asked] = Refreshes()
        self._traces = Traces()
        self._requests = Limit(*settings.requests) if settings.requests else None
        self._registers = Limit(*settings.registers) if settings.registers else None
        self._attached = False
        self._note_at = 0.0
        self._heard = Heard()
        self.took = Histogram(FINE_S)  # from the reading of a lookup to its answer

    @property
    def index(self) -> int:
        """The last index that the tables have in full."""
        return self._follower.tables.index

    @property
    def has_tables(self) -> bool:
        """Whether a whole copy of the tables ever came."""
        return self._follower.has_tables

    def is_fresh(self, now: float) -> bool:
        """Say whether answers are authoritative."""
        return self._follower.is_fresh(now)

    # --------------------------------------------------------------------------- datagrams

    def datagram(self, data: bytes, source: Source, now: float) -> list[Action]:
        """Take in a datagram from port 4342, and serve it at once."""
        return self.serve(data, source, now) if self.admits(data, source, now) else []

    def admits(self, data: bytes, source: Source, now: float) -> bool:
        """Say whether a datagram is to be served: not too long, of a peer, within its limits.

        Cheap, and asked before anything waits: a flood from one peer takes nobody's place.
        """
        reason = self._refusal(data, source, now)
        if reason is not None:
            self.counters[f"refused.{reason}"] += 1
        return reason is None

    def _refusal(self, data: bytes, source: Source, now: float) -> str | None:
        if len(data) > MAX_DATAGRAM:
            return "oversized"
        peer = self._follower.tables.peer_at(source[0])
        if _is_register(data):
            limited = self._registers and not self._registers.allows(peer or _ANYBODY, now)
            return "register_limited" if limited else None
        if peer is None:
            return "unknown_source"
        return "limited" if self._requests and not self._requests.allows(peer, now) else None

    def serve(self, data: bytes, source: Source, now: float) -> list[Action]:
        """Serve a datagram that was admitted."""
        try:
            return self._serve(data, source, now)
        except _RefusedError as refused:
            self.counters[f"refused.{refused}"] += 1
        except CodecError:
            self.counters["refused.malformed"] += 1
        return []

    def _serve(self, data: bytes, source: Source, now: float) -> list[Action]:
        peer = self._follower.tables.peer_at(source[0])
        if _is_register(data):
            return self._register(data, source, peer, now)
        if peer is None:  # it was revoked while its datagram waited
            raise _RefusedError("unknown_source")
        self._heard.add(peer, now)
        fresh = self._follower.is_fresh(now)
        quick = self._lookup.quickly(peer, data, fresh=fresh)
        if quick is not None:
            self.counters["request.received"] += 1
            self.counters["answer.fresh" if fresh else "answer.stale"] += 1
            pushes = self._announcer.introduce(peer, quick.owner, quick.ttl_min, now)
            news = self._announcer.compare(peer, quick.mark, now)
            return [*pushes, Send(source, quick.datagram), *news]
        return self._read(data, source, peer, now)

    def _read(self, data: bytes, source: Source, peer: str, now: float) -> list[Action]:
        match decode(data):
            case MapRequest() as request:
                return self._request(Asked(peer, source, request), now)
            case Encapsulated(source_port=port, message=request):
                # The outer source is who asks (and proved it); the inner port is where it listens.
                return self._request(Asked(peer, (source[0], port), request), now)
            case MapNotifyAck(nonce=nonce, xtr=xtr):
                self._announcer.acknowledged(nonce, source[0])
                reports = self._traces.acknowledged(nonce, source[0], now)
                return reports + self._announcer.compare(peer, _mark(xtr), now)
            case _:
                raise _RefusedError("unexpected_type")

    def _register(self, data: bytes, source: Source, peer: str | None, now: float) -> list[Action]:
        """Hand a Map-Register on: the replica decides who it is from and what it does."""
        if not self._attached:
            raise _RefusedError("register_no_replica")
        self.counters["register.forwarded"] += 1
        forward = Tell(Forward(source, data))
        if peer is None:
            return [forward]
        self._heard.add(peer, now)
        marked = data[0] & _REGISTER_I and data[12:16] == _UNAUTHENTICATED
        mark = b""
        if marked and len(data) >= 16 + MARK_BYTES:
            mark = Mark.decode(data[-MARK_BYTES:])._replace(since=0).encode()
        return [forward, *self._announcer.compare(peer, mark, now)]

    def _request(self, asked: Asked, now: float) -> list[Action]:
        self._check(asked)
        self.counters["request.received"] += 1
        if not asked.request.smr_invoked:
            answer = self._answer(asked, now, fresh=self._follower.is_fresh(now))
            mark = _mark(asked.request.xtr)
            if mark and Mark.decode(mark).since == TRACED:
                mark = Mark.decode(mark)._replace(since=0).encode()
                answer += self._trace(asked, answer, now)
            return answer + self._announcer.compare(asked.requester, mark, now)
        if not self._attached:
            raise _RefusedError("refresh_no_replica")
        if not self._refreshes.add(asked):
            raise _RefusedError("refresh_too_many")
        self.counters["refresh.received"] += 1
        return self._barrier(now)

    def _trace(self, asked: Asked, answer: list[Action], now: float) -> list[Action]:
        if not self._follower.tables.takes_keys(asked.requester):
            return []  # a plain LISP client with an identifier of its own
        self.counters["request.traced"] += 1
        return self._traces.begin(asked, self.index, answer, now)

    def _check(self, asked: Asked) -> None:
        request = asked.request
        instance = self._follower.tables.peers[asked.requester].instance
        refusals = (
            (request.probe, "probe"),
            (request.smr, "smr"),
            (request.dont_map_reply, "no_reply_wanted"),
            (not request.records, "no_record"),
            (len(request.records) > MAX_REQUEST_RECORDS, "too_many_records"),
            (any(r.eid.instance != instance for r in request.records), "foreign_instance"),
        )
        for refused, reason in refusals:
            if refused:
                raise _RefusedError(reason)

    def _answer(self, asked: Asked, now: float, *, fresh: bool) -> list[Action]:
        found = self._lookup.answer(asked, fresh=fresh)
        actions: list[Action] = []
        for owner, ttl_min in found.owners.items():  # first: it has the longer way to go
            actions += self._announcer.introduce(asked.requester, owner, ttl_min, now)
        for instance, address in found.missed:
            self._announcer.missed(asked.requester, instance, address, now)
        if found.servers:
            self._announcer.asked_for_servers(asked.requester, now)
        self.counters["answer.fresh" if fresh else "answer.stale"] += 1
        self.counters["answer.negative"] += bool(found.missed)
        return actions + [Send(asked.reply_to, datagram) for datagram in found.datagrams]

    # -------------------------------------------------------------------------- the replica

    def attached(self, now: float) -> list[Action]:
        """Tell a replica that is there now what we have."""
        self._attached = True
        self._note_at = now
        return [Tell(Attach(self._follower.attach_index))]

    def detached(self) -> None:
        """Go on with what we have: the replica is gone."""
        self._attached = False
        self._follower.disconnected()
        self.counters["refresh.lost"] += self._refreshes.lost()

    def feed(self, message: ToResponder, now: float) -> list[Action]:
        """Take in a message of the replica; raises FeedError where it makes no sense."""
        match message:
            case Answer(destination, datagram):
                self.counters["register.answered"] += 1
                return [Send(destination, datagram)]
            case TableBegin():
                self._follower.begin(message)
            case Rows():
                self._follower.rows(message)
            case TableEnd():
                return self._switch(message, now)
            case _:
                deferred = self._follower.defer(message)
                return [] if deferred else self._follow(message, now)
        return []

    def _follow(self, message: Deferred, now: float) -> list[Action]:
        match message:
            case Changes():
                effects = self._follower.changes(message)
                return self._changed(effects, now) if effects else []
            case Lease(until):
                self._follower.lease(until)
                return []
            case BarrierDone(number, ok):
                return self._barrier_done(number, now, ok=ok)

    def _switch(self, message: TableEnd, now: float) -> list[Action]:
        ended = self._follower.end(message)
        if ended is None:
            self.counters["feed.older_copies"] += 1  # the tables stay as they are
            return []
        former, deferred = ended
        self._answers.clear()
        effects = compare(former, self._follower.tables, self._announcer.subjects())
        actions = self._announcer.changed(effects, now)
        for waited in deferred:
            actions += self._follow(waited, now)
        return actions

    def _changed(self, effects: Effects, now: float) -> list[Action]:
        for peer in (*effects.touched, *effects.around):
            self._answers.forget(peer)
        actions = self._announcer.changed(effects, now)
        if effects.revoked:  # an operator waits until no server answers with it
            actions.append(Tell(ResponderNote(self._note(now))))
        return actions

    def _barrier(self, now: float) -> list[Action]:
        number = self._refreshes.barrier(now)
        return [] if number is None else [Tell(Barrier(number))]

    def _barrier_done(self, number: int, now: float, *, ok: bool) -> list[Action]:
        actions: list[Action] = []
        for asked in self._refreshes.done(number, now):
            if not ok:
                self.counters["refresh.refused"] += 1
            elif self._still_enrolled(asked):
                actions += self._answer(asked, now, fresh=True)
        return actions + self._barrier(now)

    def _still_enrolled(self, asked: Asked) -> bool:
        return self._follower.tables.peer_at(asked.reply_to[0]) == asked.requester

    # --------------------------------------------------------------------------------- time

    def tick(self, now: float) -> list[Action]:
        """Do what time asks for."""
        actions = self._announcer.tick(now) + self._traces.give_up(now)
        late = self._refreshes.give_up(now)
        self.counters["refresh.late"] += late
        if late:
            actions += self._barrier(now)
        if self._attached and now >= self._note_at:
            self._note_at = now + NOTE_EVERY_S
            actions.append(Tell(ResponderNote(self._note(now))))
        return actions

    def next_tick(self, now: float) -> float | None:
        """Return when tick() has something to do; None: not before something comes in."""
        times = [
            self._announcer.next_due(now),
            self._refreshes.next_due(),
            self._traces.next_due(),
        ]
        if self._attached:
            times.append(self._note_at)
        return min((at for at in times if at is not None), default=None)

    def _note(self, now: float) -> dict[str, int]:
        gauges = {
            "index": self.index,
            "reachable_agents": self._heard.count(now),
            "refresh.waiting": len(self._refreshes),
            **self._follower.tables.counts(),
            **self._announcer.gauges(),
            **self.took.flat("lookup"),
        }
        return {name: value for name, value in self.counters.items() if value} | gauges


def _is_register(data: bytes) -> bool:
    return bool(data) and data[0] >> 4 == _MAP_REGISTER


def _mark(xtr: XtrId | None) -> bytes:
    return b"" if xtr is None else Mark.of(xtr).encode()
