"""Map-Requests: to the preferred server, then to the others, repeated; any answer wins.

An answer with A=0 (the server is out of touch with the quorum) has the others asked at once, and
is used only when no A=1 answer comes within a short while or every server has answered.
"""

import random
from dataclasses import dataclass, field, replace

from wgmap.addresses import IPNetwork
from wgmap.lisp.mark import marked
from wgmap.lisp.messages import MapReply, Record
from wgmap_agent.engine.cache import Cache
from wgmap_agent.engine.counters import Counters
from wgmap_agent.engine.hedging import Hedging
from wgmap_agent.engine.questions import Questions
from wgmap_agent.engine.schedule import Schedule
from wgmap_agent.engine.servers import Server, Servers
from wgmap_agent.engine.settings import Settings
from wgmap_agent.engine.types import Action, Identity, Send

MAX_SETTLED = 64


@dataclass(slots=True)
class Pending:
    """A question that is out."""

    target: IPNetwork
    nonce: int
    refresh: bool
    started: float
    repeat_at: float
    timeout: float
    attempts: int = 1
    others_at: float | None = None  # when the servers that were not asked yet are
    asked: dict[str, float] = field(default_factory=dict)  # server -> first sent
    answered: set[str] = field(default_factory=set)
    unsure: tuple[Record, ...] = ()  # an A=0 answer, kept for want of a better one
    unsure_at: float | None = None  # when it is used
    out_of_touch: set[str] = field(default_factory=set)  # who gave an A=0 answer
    recall_at: float | None = None  # when the cache answers for want of a server
    second: bool = False  # one server was chosen, to hear of changes from it as well


@dataclass(frozen=True, slots=True)
class Answer:
    """The end of a question; no records: nobody answered in time."""

    target: IPNetwork
    records: tuple[Record, ...]
    authoritative: bool
    refresh: bool
    server: str | None = None  # who gave it; it pushes changes from now on
    second: bool = False  # beside another server's


class Requests:
    """The questions that are out; at most ``max_requests``, one for a target."""

    def __init__(
        self,
        identity: Identity,
        servers: Servers,
        settings: Settings,
        rng: random.Random,
        counters: Counters,
        cache: Cache,
    ) -> None:
        self._questions = Questions(identity)
        self._servers = servers
        self._settings = settings
        self._rng = rng
        self._counters = counters
        self.cache = cache
        self._hedging = Hedging(servers, settings)
        self._pending: dict[int, Pending] = {}
        self._nonces: dict[IPNetwork, int] = {}
        self._due: Schedule[int] = Schedule(self._due_at)  # nonces
        # Settled questions whose other answers may still come: they are round trips as well.
        self._settled: dict[int, Pending] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def is_asking(self, target: IPNetwork) -> bool:
        """Say whether this target is being asked for."""
        return target in self._nonces

    def ask(
        self,
        now: float,
        target: IPNetwork,
        *,
        refresh: bool = False,
        everybody: bool = False,
        second: str | None = None,
        recall: bool = False,
    ) -> list[Action]:
        """Ask for a prefix; nothing where the question is out already or too many are.

        ``everybody``: ask all servers, for each tells the destination of us, and the one that
        answers first may be one that cannot reach it.
        ``second``: the one server to ask (first), beside those that were asked before.
        ``recall``: the cache may answer where no server does.
        """
        known = self._nonces.get(target)
        if known is not None:
            if not refresh or self._pending[known].refresh:
                return self._ask_rest(now, self._pending[known]) if everybody else []
            self._drop(self._pending[known])  # a refresh says more than a plain question
        if len(self._pending) >= self._settings.max_requests:
            self._counters.add("request.refused_too_many")
            return []
        timeout = self._servers.timeout()
        nonce = self._fresh_nonce()
        pending = Pending(target, nonce, refresh, now, now + timeout, timeout)
        pending.second = second is not None
        self._pending[nonce] = pending
        self._nonces[target] = nonce
        self._counters.add("request.second" if second else "request.asked")
        choice = self._hedging.first(now, refresh=refresh, everybody=everybody, only=second)
        pending.others_at = choice.others_at
        if recall and len(self.cache):
            pending.recall_at = now + self._settings.better_answer_s + 2 * self._servers.rtt()
        actions = self._send(now, pending, choice.servers)
        self._due.note(nonce)
        return actions

    def reply(self, now: float, server: str, reply: MapReply) -> Answer | None:
        """Take in a Map-Reply; returns an answer where it settles a question."""
        pending = self._pending.get(reply.nonce)
        if pending is None:
            return self._extra(now, server, reply)
        if not reply.records:
            self._counters.add("reply.empty")
            return None
        self._sample(now, server, pending)
        self._judge_others(now, pending)
        if self._is_sure(now, pending, reply):
            self._pass_over(now, *pending.out_of_touch)
            pending.unsure = ()
            return self._settle(pending, reply.records, authoritative=True, server=server)
        pending.out_of_touch.add(server)
        return self._keep_unsure(now, pending, server, reply.records)

    def _extra(self, now: float, server: str, reply: MapReply) -> Answer | None:
        """Take in an answer to a settled question: it counts where only unsure ones had come."""
        settled = self._settled.get(reply.nonce)
        if settled is None:
            self._counters.add("reply.unasked")
            return None
        self._counters.add("reply.extra")
        self._sample(now, server, settled)
        if not settled.unsure or not self._is_sure(now, settled, reply):
            return None
        settled.unsure = ()
        answer = Answer(settled.target, reply.records, True, settled.refresh, server)
        return replace(answer, second=settled.second)

    def _is_sure(self, now: float, pending: Pending, reply: MapReply) -> bool:
        """Say whether an answer counts as authoritative.

        One that took too long does not: the server may have been paused between its check and
        its answer.
        """
        in_time = now - pending.started <= self._settings.staleness_s
        sure = all(record.authoritative for record in reply.records)
        return bool(reply.records) and sure and in_time

    def _sample(self, now: float, server: str, pending: Pending) -> None:
        """Take a round trip where the question went out once (Karn) and waited for no leader."""
        once = pending.attempts == 1 and not pending.refresh
        if once and server in pending.asked and server not in pending.answered:
            self._servers.sample(server, now - pending.asked[server])
        pending.answered.add(server)

    def _judge_others(self, now: float, pending: Pending) -> None:
        """Pass over the servers whose answer is late while another's is there."""
        if pending.refresh:
            return
        late = (
            name
            for name, since in pending.asked.items()
            if name not in pending.answered and self._servers.knows(name)
            if now - since > self._servers.patience(name)
        )
        self._pass_over(now, *late)

    def notice_late(self, now: float) -> None:
        """Pass over the servers that owe an answer for too long while others gave theirs."""
        self._pass_over(now, *self._servers.late(now))

    def _pass_over(self, now: float, *names: str) -> None:
        """Take preference from servers; what only they were asked is asked of others at once."""
        for name in names:
            if not self._servers.knows(name) or not self._servers.passed_over(now, name):
                continue
            self._counters.add("server.passed_over")
            for pending in self._pending.values():
                if pending.others_at is not None and name in pending.asked:
                    pending.others_at = now
                    self._due.note(pending.nonce)

    def forget(self, target: IPNetwork) -> None:
        """Let a question go that nobody waits for any more."""
        nonce = self._nonces.get(target)
        if nonce is not None:
            self._drop(self._pending[nonce])

    def due(self, now: float) -> tuple[list[Action], list[Answer]]:
        """Repeat what is due and settle what is over."""
        actions: list[Action] = []
        answers: list[Answer] = []
        for nonce in self._due.take(now):
            pending = self._pending[nonce]
            if pending.unsure_at is not None and pending.unsure_at <= now:
                answers.append(self._settle(pending, pending.unsure, authoritative=False))
            elif pending.started + self._settings.request_give_up_s <= now:
                self._counters.add("request.gave_up")
                answers.append(self._settle(pending, (), authoritative=False))
            elif pending.recall_at is not None and pending.recall_at <= now:
                answers += self._recall(now, pending)
            elif pending.repeat_at <= now:
                actions += self._repeat(now, pending)
            elif pending.others_at is not None and pending.others_at <= now:
                actions += self._ask_others(now, pending)
            self._due.note(nonce)
        return actions, answers

    def deadline(self) -> float | None:
        """Return when ``due`` has something to do."""
        return self._due.next()

    def _due_at(self, nonce: int) -> float | None:
        pending = self._pending.get(nonce)
        if pending is None:
            return None
        over = pending.started + self._settings.request_give_up_s
        times = (
            *(pending.repeat_at, over, pending.unsure_at),
            *(pending.others_at, pending.recall_at),
        )
        return min(time for time in times if time is not None)

    def _recall(self, now: float, pending: Pending) -> list[Answer]:
        """Let the cache answer, unless some server may still do so in time, or has."""
        pending.recall_at = None
        if pending.answered:
            return []
        late = now - pending.started >= self._settings.recall_s
        if not late and not self._servers.all_silent(now):
            pending.recall_at = now + self._settings.recall_again_s
            return []
        records = self.cache.find(now, pending.target.network_address)
        if not records:
            return []
        self._counters.add("request.recalled")
        pending.unsure = records  # a server's answer to this question still counts
        self._drop(pending)
        return [Answer(pending.target, records, authoritative=False, refresh=False)]

    def _keep_unsure(
        self, now: float, pending: Pending, server: str, records: tuple[Record, ...]
    ) -> Answer | None:
        # A positive A=0 answer says more than a negative one.
        if not pending.unsure or any(record.locators for record in records):
            pending.unsure = records
        everybody = set(self._servers.names(now))
        mute = {name for name in everybody if self._servers.is_mute(now, name)}
        if pending.answered | mute >= everybody:
            return self._settle(pending, pending.unsure, authoritative=False)
        if not everybody <= set(pending.asked):
            pending.others_at = now
        better_by = self._better_by(now, pending, server, everybody - mute)
        pending.unsure_at = min(better_by, pending.unsure_at or better_by)
        self._due.note(pending.nonce)
        return None

    def _better_by(self, now: float, pending: Pending, server: str, servers: set[str]) -> float:
        """Return until when a better answer than this server's is waited for.

        For a positive one no longer than these servers need, or one as near as this: it is replaced
        where a better one comes after all, and meanwhile the other side has been told of us, and
        waits.
        """
        longest = now + self._settings.better_answer_s + 2 * self._servers.rtt()
        if not any(record.locators for record in pending.unsure):
            return longest
        late = (
            pending.asked.get(name, now)
            + max(self._servers.patience(name), self._settings.late_floor_s)
            for name in servers - pending.answered
        )
        near = now + max(self._servers.patience(server), self._settings.late_floor_s)
        return min(longest, near, max(late))

    def _settle(
        self,
        pending: Pending,
        records: tuple[Record, ...],
        *,
        authoritative: bool,
        server: str | None = None,
    ) -> Answer:
        self._drop(pending)
        answer = Answer(pending.target, records, authoritative, pending.refresh, server)
        return replace(answer, second=pending.second)

    def _drop(self, pending: Pending) -> None:
        del self._pending[pending.nonce]
        del self._nonces[pending.target]
        while len(self._settled) >= MAX_SETTLED:
            del self._settled[next(iter(self._settled))]
        self._settled[pending.nonce] = pending

    def _repeat(self, now: float, pending: Pending) -> list[Action]:
        pending.attempts += 1
        pending.timeout = min(pending.timeout * 2, self._settings.request_cap_s)
        pending.repeat_at = now + pending.timeout * self._rng.uniform(0.9, 1.1)
        self._counters.add("request.repeated")
        pending.others_at = None
        return self._send(now, pending, self._servers.all())

    def _ask_others(self, now: float, pending: Pending) -> list[Action]:
        """Ask every server that was not asked yet, within the budget of hedges."""
        pending.others_at = None
        if not pending.out_of_touch and not self._hedging.take(now, set(pending.asked)):
            self._counters.add("request.hedge_refused")
            return []
        self._counters.add("request.hedged")
        return self._ask_rest(now, pending)

    def _ask_rest(self, now: float, pending: Pending) -> list[Action]:
        pending.others_at = None
        others = (one for one in self._servers.all() if one.info.name not in pending.asked)
        return self._send(now, pending, tuple(others))

    def _send(self, now: float, pending: Pending, servers: tuple[Server, ...]) -> list[Action]:
        datagram = self._questions.write(pending.target, pending.nonce, refresh=pending.refresh)
        actions: list[Action] = []
        for server in servers:
            pending.asked.setdefault(server.info.name, now)
            self._servers.sent(now, server.info.name, quick=not pending.refresh)
            mark = self._servers.mark(server.info.name)
            actions.append(Send(server.info.name, marked(datagram, mark)))
        return actions

    def _fresh_nonce(self) -> int:
        nonce = self._rng.getrandbits(64)
        while nonce in self._pending:
            nonce = self._rng.getrandbits(64)
        return nonce
