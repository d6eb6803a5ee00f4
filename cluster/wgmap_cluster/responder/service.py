"""The map service: datagrams and the replica's stream in, datagrams out. Pure, bounded.

Everything that is refused is counted under a reason; nothing that an agent sends raises.
"""

import random
from collections import Counter
from dataclasses import dataclass

from wgmap.lisp.codec import decode
from wgmap.lisp.mark import MARK_BYTES, Mark
from wgmap.lisp.messages import CodecError, MapNotifyAck
from wgmap.metrics.families import FINE_S, Histogram
from wgmap_cluster.feed import (
    Answer,
    Attach,
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
    WhoKnows,
)
from wgmap_cluster.responder import requests
from wgmap_cluster.responder.actions import Action, Send, Tell
from wgmap_cluster.responder.announcer import Announcer, PushSettings
from wgmap_cluster.responder.answers import Answers
from wgmap_cluster.responder.effects import Effects
from wgmap_cluster.responder.follower import Deferred, Follower
from wgmap_cluster.responder.heard import Heard
from wgmap_cluster.responder.limits import Limit
from wgmap_cluster.responder.mappings import Peer
from wgmap_cluster.responder.requests import RefusedError, Requests
from wgmap_cluster.responder.weight import weight

MAX_DATAGRAM = 16 * 1024
NOTE_EVERY_S = 1.0
_MAP_REGISTER = 3  # the type in the first four bits
_MAP_NOTIFY_ACK = 5
_REQUESTS = (1, 8)  # Map-Request, and one that is encapsulated
_NONCE = slice(4, 12)
_REGISTER_I = 0x02  # in the first byte: an I field is the end of the datagram
_UNAUTHENTICATED = bytes(4)  # key id, algorithm and length where the tunnel is the proof
_ANYBODY = ""  # the limit that all who are not enrolled share


@dataclass(frozen=True, slots=True)
class Settings:
    """What the service does not learn from the replica: rates a second and bursts."""

    pushes: PushSettings
    requests: tuple[float, int] | None = (2000.0, 4000)  # of each peer; None: no limit
    registers: tuple[float, int] | None = (50.0, 200)  # of each peer; None: no limit
    patience_s: float = 1.0  # of a refresh, for its barrier and its turn; the staleness bound


class Service:
    """One responder's decisions."""

    def __init__(self, settings: Settings, rng: random.Random) -> None:
        self.counters: Counter[str] = Counter()
        self._follower = Follower()
        self._answers = Answers(self._follower)
        self._announcer = Announcer(
            self._follower, self._answers, settings.pushes, rng, self.counters
        )
        self._requests = Requests(
            self._follower, self._answers, self._announcer, settings.patience_s, self.counters
        )
        self._request_limit = Limit(*settings.requests) if settings.requests else None
        self._register_limit = Limit(*settings.registers) if settings.registers else None
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
        limit, reason = self._request_limit, "limited"
        if _is_register(data):
            limit, reason = self._register_limit, "register_limited"
        elif peer is None:
            return "unknown_source"
        if limit is None:
            return None
        name = _ANYBODY if peer is None else peer.name
        return None if limit.allows(name, now, weight(data)) else reason

    def serve(
        self, data: bytes, source: Source, now: float, until: float | None = None
    ) -> list[Action]:
        """Serve a datagram that was admitted.

        With ``until`` it is a refresh (see Again): it is answered with authority until then.
        """
        try:
            return self._serve(data, source, now, until)
        except RefusedError as refused:
            self.counters[f"refused.{refused}"] += 1
        except CodecError:
            self.counters["refused.malformed"] += 1
        return []

    def _serve(self, data: bytes, source: Source, now: float, until: float | None) -> list[Action]:
        peer = self._follower.tables.peer_at(source[0])
        kind = data[0] >> 4 if data else 0
        if kind == _MAP_REGISTER:
            return self._register(data, source, peer, now)
        if peer is None:  # it was revoked while its datagram waited
            raise RefusedError("unknown_source")
        self._heard.add(peer.name, now)
        if kind in _REQUESTS:
            return self._requests.serve(peer, data, source, now, until)
        if kind == _MAP_NOTIFY_ACK and self._announcer.repeats(data, source[0], now):
            return self._requests.acknowledged(int.from_bytes(data[_NONCE]), source[0], now)
        match decode(data):
            case MapNotifyAck(nonce=nonce, xtr=xtr):
                self._announcer.acknowledged(nonce, source[0], now)
                reports = self._requests.acknowledged(nonce, source[0], now)
                return reports + self._announcer.compare(peer, requests.mark(xtr), now)
            case _:
                raise RefusedError("unexpected_type")

    def _register(self, data: bytes, source: Source, peer: Peer | None, now: float) -> list[Action]:
        """Hand a Map-Register on: the replica decides who it is from and what it does."""
        if not self._requests.attached:
            raise RefusedError("register_no_replica")
        self.counters["register.forwarded"] += 1
        forward = Tell(Forward(source, data))
        if peer is None:
            return [forward]
        self._heard.add(peer.name, now)
        marked = data[0] & _REGISTER_I and data[12:16] == _UNAUTHENTICATED
        mark = b""
        if marked and len(data) >= 16 + MARK_BYTES:
            mark = Mark.decode(data[-MARK_BYTES:])._replace(since=0).encode()
        return [forward, *self._announcer.compare(peer, mark, now)]

    # -------------------------------------------------------------------------- the replica

    def attached(self, now: float) -> list[Action]:
        """Tell a replica that is there now what we have."""
        self._requests.attached = True
        self._note_at = now
        return [Tell(Attach(self._follower.attach_index))]

    def detached(self) -> None:
        """Go on with what we have: the replica is gone."""
        self._follower.disconnected()
        self._requests.detached()

    def feed(self, message: ToResponder, now: float) -> list[Action]:
        """Take in a message of the replica; raises FeedError where it makes no sense."""
        match message:
            case Answer(destination, datagram):
                self.counters["register.answered"] += 1
                return [Send(destination, datagram)]
            case WhoKnows():
                return [Tell(self._announcer.contacts.answer(message, now))]
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
                return self._requests.barrier_done(number, now, ok=ok)

    def _switch(self, message: TableEnd, now: float) -> list[Action]:
        ended = self._follower.end(message)
        if ended is None:
            self.counters["feed.older_copies"] += 1  # the tables stay as they are
            return []
        former, deferred = ended
        self._answers.clear()
        self._follower.former.add(former, self._announcer.subjects())
        actions = self._compare(now)
        for waited in deferred:
            actions += self._follow(waited, now)
        return actions

    def _compare(self, now: float) -> list[Action]:
        """Go on with what a switch of tables means for those who were told of the former ones."""
        former = self._follower.former
        return self._announcer.changed(former.step(self._follower.tables), now) if former else []

    def _changed(self, effects: Effects, now: float) -> list[Action]:
        for peer in (*effects.touched, *effects.around):
            self._answers.forget(peer)
        actions = self._announcer.changed(effects, now)
        if effects.revoked:  # an operator waits until no server answers with it
            actions.append(Tell(ResponderNote(self._note(now))))
        return actions

    # --------------------------------------------------------------------------------- time

    def tick(self, now: float) -> list[Action]:
        """Do what time asks for."""
        actions = [*self._compare(now), *self._announcer.tick(now), *self._requests.tick(now)]
        if self._requests.attached and now >= self._note_at:
            self._note_at = now + NOTE_EVERY_S
            actions.append(Tell(ResponderNote(self._note(now))))
        return actions

    def next_tick(self, now: float) -> float | None:
        """Return when tick() has something to do; None: not before something comes in."""
        times = [self._announcer.next_due(now), self._requests.next_due()]
        if self._follower.former:
            times.append(now)
        if self._requests.attached:
            times.append(self._note_at)
        return min((at for at in times if at is not None), default=None)

    def _note(self, now: float) -> dict[str, int]:
        gauges = {
            "index": self.index,
            "reachable_agents": self._heard.count(now),
            "refresh.waiting": self._requests.waiting,
            **self._follower.tables.counts(),
            **self._announcer.gauges(),
            **self.took.flat("lookup"),
            **self._announcer.introductions.flat("introduction"),
        }
        return {name: value for name, value in self.counters.items() if value} | gauges


def _is_register(data: bytes) -> bool:
    return bool(data) and data[0] >> 4 == _MAP_REGISTER
