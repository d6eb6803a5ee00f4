"""Who is told of what, unasked: introductions, changes, withdrawals, revocations."""

import random
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from wgmap.addresses import IPAddress, host_prefix, prefix_from_bytes
from wgmap.lisp.codec import encode
from wgmap.lisp.mark import Mark
from wgmap.lisp.messages import LISP_PORT, Eid, MapRequest, RequestRecord
from wgmap.metrics.families import Histogram
from wgmap_cluster.fsm.rows import RevocationRow
from wgmap_cluster.responder.actions import Action, Send
from wgmap_cluster.responder.answers import Answers, Encoded, join, revocation, withdrawn
from wgmap_cluster.responder.contacts import Contacts
from wgmap_cluster.responder.effects import SERVER_SET, Effects
from wgmap_cluster.responder.follower import Follower
from wgmap_cluster.responder.limits import Limit
from wgmap_cluster.responder.mappings import Peer, Place
from wgmap_cluster.responder.misses import Misses
from wgmap_cluster.responder.news import News
from wgmap_cluster.responder.pushes import Effort, Push, Pushes
from wgmap_cluster.responder.subscriptions import Subscriptions
from wgmap_cluster.responder.withdrawals import Withdrawals

INTRODUCTION_ATTEMPTS = 8  # about 6 s: the requester asks again by then
CHANGE_ATTEMPTS = 12  # about 18 s: whoever was away longer revalidates
REVOCATION_ATTEMPTS = 20  # about 42 s
NEWS_ATTEMPTS = 6  # about 1.5 s: the agent asks again
_INTRODUCTION = Effort(INTRODUCTION_ATTEMPTS, awaited=True)
_CHANGE = Effort(CHANGE_ATTEMPTS)
_REVOCATION = Effort(REVOCATION_ATTEMPTS)
_NEWS = Effort(NEWS_ATTEMPTS)
NEWS = "*"  # the subject that is no peer: what an agent missed
SERVERS_TTL_MIN = 60
MAX_OUT = 16_384  # pushes out at a time; introductions get three quarters of it
MAX_BROADCASTS = 4096
BUDGET = 256  # pushes of broadcasts started in one go
PAUSE_S = 0.01  # before the next go
MAX_SOLICITS = 8  # mappings of one subject that a plain client is asked to look at
# Seconds to the other side and back, and in steps that tell a site from a continent; an
# introduction is given up after about 6 s.
TOLD_S = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 3.0, 5.0, 10.0),
)


@dataclass(frozen=True, slots=True)
class PushSettings:
    """Rates a second and bursts."""

    address: IPAddress
    from_each: tuple[float, int] = (200.0, 400)  # introductions of one requester
    to_each: tuple[float, int] = (500.0, 1000)  # introductions to one destination
    changes_of_each: tuple[float, int] = (5.0, 20)  # of one subject; more are put together


@dataclass(slots=True)
class _Broadcast:
    subject: str
    agents: Iterator[str]
    effort: Effort
    mark: Mark | None = None


class Announcer:
    """Decides which agents are told; the pushes are repeated until acknowledged."""

    def __init__(
        self,
        follower: Follower,
        answers: Answers,
        settings: PushSettings,
        rng: random.Random,
        counters: Counter[str],
    ) -> None:
        self._follower = follower
        self._news = News(follower, rng.randbytes(16))
        self._answers = answers
        self._address = settings.address
        self._rng = rng
        self._counters = counters
        self._from_each = Limit(*settings.from_each)
        self._to_each = Limit(*settings.to_each)
        self._changes_of_each = Limit(*settings.changes_of_each)
        self._pushes = Pushes(rng, MAX_OUT)
        self._subscriptions = Subscriptions(most_each=1 << 16, most=1 << 20)
        self._misses = Misses()
        self._withdrawals = Withdrawals()
        self.contacts = Contacts(self._subscriptions, self._pushes)
        self._broadcasts: deque[_Broadcast] = deque()
        self._later: dict[str, float] = {}  # subject -> when its changes may be told again
        self.introductions = Histogram(TOLD_S)  # from the answer to the other side's ack

    # --------------------------------------------------------------------------- questions

    def introduce(self, requester: Peer, owner: Peer, ttl_min: int, now: float) -> list[Action]:
        """Note that a peer was told of another one, and tell the other one of it."""
        if requester is owner:
            return []
        self._subscriptions.add(owner.name, requester.name, now, now + 60 * ttl_min)
        self._pushes.heard(owner.name, requester.name)
        if requester.first is None or not owner.kind.takes_keys:
            return []
        if not self._from_each.allows(requester.name, now):
            self._counters["push.limited_requester"] += 1
            return []
        if not self._to_each.allows(owner.name, now):
            self._counters["push.limited_destination"] += 1
            return []
        if len(self._pushes) >= MAX_OUT * 3 // 4:
            self._counters["push.table_full"] += 1
            return []
        return self._push(requester.name, owner, now, _INTRODUCTION)

    def missed(self, agent: str, instance: int, address: bytes, now: float) -> None:
        """Note that an agent was told that nothing is known of an address."""
        self._misses.add(instance, address, agent, now)

    def asked_for_servers(self, agent: str, now: float) -> None:
        """Note that an agent was told of the server set."""
        self._subscriptions.add(SERVER_SET, agent, now, now + 60 * SERVERS_TTL_MIN)

    def compare(self, agent: Peer, mark: bytes, now: float) -> list[Action]:
        """Tell an agent what it missed, by the mark in what it sent (b"": there was none).

        Nothing without a lease, and nothing while it is being told: it asks again.
        """
        if not mark or self._news.is_none(mark) or not self._follower.is_fresh(now):
            return []
        pair = NEWS, agent.name
        if self._pushes.is_out(pair) or not agent.kind.takes_keys:
            return []
        records, news = self._news.since(Mark.decode(mark), agent.kind.instance)
        address = agent.address
        datagram = self._pushes.start(pair, address, records, now, _NEWS, news)
        self._counters["push.table_full" if datagram is None else "push.news"] += 1
        return [] if datagram is None else [Send((address, LISP_PORT), datagram)]

    def repeats(self, ack: bytes, address: str, now: float) -> bool:
        """Take in a Map-Notify-Ack that repeats its push to the byte, as agents send it."""
        push = self._pushes.repeats(ack, address)
        if push is not None:
            self._over(push, now)
        return push is not None

    def acknowledged(self, nonce: int, address: str, now: float) -> None:
        """Take in a Map-Notify-Ack."""
        push = self._pushes.acknowledged(nonce, address)
        if push is None:
            self._counters["push.unknown_ack"] += 1
        else:
            self._over(push, now)

    def _over(self, push: Push, now: float) -> None:
        self._counters["push.acknowledged"] += 1
        if push.since is not None:
            self.introductions.observe(now - push.since)

    def subjects(self) -> list[str]:
        """Return everybody whom some agent was told of."""
        return self._subscriptions.subjects()

    # ----------------------------------------------------------------------------- changes

    def changed(self, effects: Effects, now: float) -> list[Action]:
        """Tell those whom a batch of changes concerns."""
        for old, new in effects.renamed.items():
            self._subscriptions.rename(old, new)
        for place, peer in effects.appeared:
            self._withdrawals.over(place)
            self._tell_few(peer, self._misses.take(place, now))
        for place, owner, record in effects.withdrawn:
            # Those who held it of one peer must hear that, also where another one has it by now.
            there = self._follower.tables.mapping(place)
            if there is None or there.peer.name != owner:
                self._withdrawals.add(owner, place, withdrawn(record), now)
        for agent in effects.gone:
            self._pushes.forget_agent(agent)
        told = {row.peer for row in effects.revoked.values()}
        for number, revoked in effects.revoked.items():
            self._tell_of_revocation(number, revoked, now)
        for subject in effects.touched:
            if subject not in told:
                self._tell_of_change(subject, now)
        for around, peer in effects.inside:
            self._tell_few(peer, self._subscriptions.of(around, now))
        return self._continue(now)

    def _tell_of_revocation(self, number: int, row: RevocationRow, now: float) -> None:
        for prefix, record in zip(row.prefixes, revocation(row), strict=False):
            self._withdrawals.add(row.peer, Place(row.instance, prefix), record, now)
        everybody = self._everybody(row.peer, row.instance, now)
        # In front of everything, and whatever the queue holds: an operator waits for it.
        since = self._follower.tables.revoked_before(number)
        mark = self._news.mark(number, since)
        self._broadcasts.appendleft(_Broadcast(row.peer, everybody, _REVOCATION, mark))

    def _tell_of_change(self, subject: str, now: float) -> None:
        """Tell the holders of a subject, or a little later where that is too often or too much."""
        agents = self._subscriptions.of(subject, now)
        if not agents:
            self._later.pop(subject, None)
        elif self._is_full() or not self._changes_of_each.allows(subject, now):
            self._counters["push.put_together"] += subject not in self._later
            self._later[subject] = now + self._changes_of_each.every
        else:
            self._later.pop(subject, None)
            self._broadcasts.append(_Broadcast(subject, iter(agents), _CHANGE))

    def _tell_few(self, subject: str, agents: list[str]) -> None:
        """Tell agents that do not hold the subject yet; they would ask where this is left out."""
        if agents and self._is_full():
            self._counters["push.broadcast_dropped"] += 1
        elif agents:
            self._broadcasts.append(_Broadcast(subject, iter(agents), _CHANGE))

    def _is_full(self) -> bool:
        return len(self._broadcasts) >= MAX_BROADCASTS

    def _everybody(self, subject: str, instance: int, now: float) -> Iterator[str]:
        """Yield the agents of an instance, those that hold the subject first."""
        first = dict.fromkeys(self._subscriptions.of(subject, now))
        yield from first
        for peer in self._follower.tables.registered_peers():
            kind = peer.kind
            if kind.enrolled and kind.instance == instance and peer.name not in first:
                yield peer.name

    # -------------------------------------------------------------------------------- time

    def tick(self, now: float) -> list[Action]:
        """Repeat what is due, go on with broadcasts."""
        again, given_up = self._pushes.repeat(now)
        self._counters["push.repeated"] += len(again)
        self._counters["push.given_up"] += len(given_up)
        self._counters["introduction.unheard"] += sum(one.since is not None for one in given_up)
        for subject in [subject for subject, at in self._later.items() if at <= now]:
            self._tell_of_change(subject, now)
        self._subscriptions.sweep(now, 64)
        return [Send((address, LISP_PORT), data) for address, data in again] + self._continue(now)

    def next_due(self, now: float) -> float | None:
        """Return when tick() has something to do."""
        times = [*self._later.values()]
        repeat = self._pushes.next_repeat()
        if repeat is not None:
            times.append(repeat)
        if self._broadcasts:
            times.append(now + PAUSE_S)
        return min(times, default=None)

    def gauges(self) -> dict[str, int]:
        """Return how full the tables are."""
        return {
            "push.out": len(self._pushes),
            "subscriptions": len(self._subscriptions),
            "subscriptions.dropped": self._subscriptions.dropped,
        }

    def _continue(self, now: float) -> list[Action]:
        actions: list[Action] = []
        budget = min(BUDGET, MAX_OUT - len(self._pushes))
        while self._broadcasts and budget > 0:
            broadcast = self._broadcasts[0]
            agent = next(broadcast.agents, None)
            if agent is None:
                self._broadcasts.popleft()
            elif agent != broadcast.subject:
                peer = self._follower.tables.peer(agent)
                if peer is not None:
                    actions += self._push(
                        broadcast.subject, peer, now, broadcast.effort, broadcast.mark
                    )
                budget -= 1
        return actions

    # ----------------------------------------------------------------------------- pushing

    def _push(
        self, subject: str, agent: Peer, now: float, effort: Effort, mark: Mark | None = None
    ) -> list[Action]:
        if not agent.kind.enrolled or agent.kind.revoked:
            return []
        address = agent.address
        if not agent.kind.takes_keys:
            return self._solicit(subject, agent, address)
        records = self._records_of(subject, agent.kind.instance, now)
        if not records.count and mark is None:
            return []
        pair = subject, agent.name
        datagram = self._pushes.start(pair, address, records, now, effort, mark)
        if datagram is None:
            self._counters["push.table_full"] += 1
            return []
        self._subscribe(subject, agent.name, now)
        self._counters["push.started"] += 1
        return [Send((address, LISP_PORT), datagram)]

    def _records_of(self, subject: str, instance: int, now: float) -> Encoded:
        fresh = self._follower.is_fresh(now)
        if subject == SERVER_SET:
            return join(self._answers.servers(instance), authoritative=fresh)
        holder = self._follower.tables.holder(subject)
        there = self._answers.of_peer(holder).encoded(fresh=fresh) if holder else join([])
        withdrawals = self._withdrawals.of(subject, now)
        if not withdrawals:
            return there
        gone = join(withdrawals, authoritative=fresh)
        return Encoded(gone.count + there.count, gone.data + there.data)

    def _subscribe(self, subject: str, agent: str, now: float) -> None:
        mappings = self._follower.tables.mappings_of(subject)
        ttl_min = max((mapping.ttl_min for mapping in mappings), default=0)
        if ttl_min:
            self._subscriptions.add(subject, agent, now, now + 60 * ttl_min)

    def _solicit(self, subject: str, agent: Peer, address: str) -> list[Action]:
        """Ask a plain LISP client to ask again: it knows no other kind of push."""
        if agent.first is None:
            return []
        own = agent.first.place
        moved = islice(self._follower.tables.mappings_of(subject), MAX_SOLICITS)
        places = [mapping.place for mapping in moved]
        self._counters["push.solicited"] += len(places)
        return [Send((address, LISP_PORT), self._solicitation(place, own)) for place in places]

    def _solicitation(self, moved: Place, own: Place) -> bytes:
        # The field has room for an address alone; the client looks for the entry that holds it.
        source = host_prefix(prefix_from_bytes(moved.prefix).network_address)
        return encode(
            MapRequest(
                nonce=self._rng.getrandbits(64),
                itr_rlocs=(self._address,),
                records=(RequestRecord(Eid(prefix_from_bytes(own.prefix), own.instance)),),
                source_eid=Eid(source, moved.instance),
                smr=True,
            )
        )
