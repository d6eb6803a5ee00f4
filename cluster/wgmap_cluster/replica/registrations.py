"""Map-Registers: admitted, proposed one at a time for each peer, acknowledged when applied.

An unchanged re-registration is answered from the state while the lease is fresh, and the peer
counts as seen; without a lease nothing is acknowledged, and the agent goes to another server.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TypeAlias

from wgmap.addresses import IPAddress
from wgmap.log import Log
from wgmap_cluster.feed import Answer, Forward, Source
from wgmap_cluster.fsm.commands import encode
from wgmap_cluster.fsm.registration import classify, is_in_force
from wgmap_cluster.fsm.results import Applied, Refused, Registered, Taken
from wgmap_cluster.fsm.rows import PeerRow
from wgmap_cluster.raft.interface import Outcome
from wgmap_cluster.replica.admission import AdmissionError, Admitted, admit, as_address, translate
from wgmap_cluster.replica.core import Core
from wgmap_cluster.replica.notify import answer

MAX_IN_FLIGHT = 4096  # peers whose register is being committed; more: dropped and counted
PROPOSAL_S = 1.5
Reply: TypeAlias = Callable[[Answer], None]
Outer: TypeAlias = Callable[[str, PeerRow, IPAddress], IPAddress | None]
_LOG = Log("replica.registrations")


@dataclass(slots=True)
class Job:
    """A register with the way back to who sent it."""

    admitted: Admitted
    source: Source
    reply: Reply


@dataclass(slots=True)
class Lane:
    """What is under way for one peer: the register being committed, and the one after it."""

    current: Job
    waiting: Job | None = None


class Registrar:
    """Handles the Map-Registers that responders forward."""

    def __init__(
        self,
        core: Core,
        *,
        outer: Outer,
        fresh: Callable[[], bool],
        seen: Callable[[str], None],
    ) -> None:
        """``outer`` tells where a peer's control tunnel comes from (the RLOC rule needs it)."""
        self._core = core
        self._counters = core.counters
        self._outer = outer
        self._fresh = fresh
        self._seen = seen
        self._lanes: dict[Hashable, Lane] = {}

    @property
    def in_flight(self) -> int:
        """How many peers have a register under way."""
        return len(self._lanes)

    def handle(self, forward: Forward, reply: Reply) -> None:
        """Take one datagram; the answer, if there is one, goes to ``reply``, now or later."""
        self._counters.count("registers")
        try:
            admitted = self._admit(forward)
        except AdmissionError as error:
            self._counters.count(f"register_refused_{error.refusal}")
            _LOG.debug("register refused", reason=error.refusal, detail=error.detail)
            return
        if admitted.dropped:
            self._counters.count("register_locators_dropped", admitted.dropped)
        job = Job(admitted, forward.source, reply)
        standing = self._standing(admitted)
        if standing is None:
            self._propose(job)
        elif not self._fresh():
            self._counters.count("register_not_fresh")
        else:
            self._counters.count(f"register_{standing.taken}")
            self._seen(admitted.peer)
            self._answer(job, standing)

    def _admit(self, forward: Forward) -> Admitted:
        state = self._core.machine.state
        source = as_address(forward.source[0])
        name = state.peer_by_address(source.packed)
        outer = None if name is None else self._outer(name, state.peers[name], source)
        return admit(state, source, outer, forward.datagram)

    def _standing(self, admitted: Admitted) -> Registered | None:
        """Return what is answered without a log entry, None where one is needed."""
        state, name, command = self._core.machine.state, admitted.peer, admitted.command
        taken = classify(state, name, admitted.row, command)
        if taken is Taken.APPLIED:
            return None
        if taken is Taken.REPEATED and not is_in_force(state, name, admitted.row, command):
            return None
        nonce = state.registrations[name].nonce
        return Registered(name, taken, nonce, tuple((k[1], row) for k, row in state.held_by(name)))

    def _propose(self, job: Job) -> None:
        key = _lane(job.admitted)
        lane = self._lanes.get(key)
        if lane is not None:
            self._counters.count("register_coalesced")
            self._queue(lane, job)
        elif len(self._lanes) >= MAX_IN_FLIGHT:
            self._counters.count("register_overload")
        else:
            self._lanes[key] = Lane(job)
            self._core.spawn(self._drive(key))

    @staticmethod
    def _queue(lane: Lane, job: Job) -> None:
        """Join the register under way if it is the same; else be the next, if not older."""
        if job.admitted.command == lane.current.admitted.command:
            lane.current = job
            return
        waiting = lane.waiting
        newer = waiting is None or job.admitted.message.nonce >= waiting.admitted.message.nonce
        if newer or job.admitted.row.lisp_key:
            lane.waiting = job

    async def _drive(self, key: Hashable) -> None:
        lane = self._lanes[key]
        try:
            while True:
                proposal = await self._core.log.propose(
                    encode(lane.current.admitted.command), PROPOSAL_S
                )
                if proposal.outcome is Outcome.APPLIED:
                    self._applied(lane.current, proposal.result)
                else:
                    self._counters.count("register_not_committed")
                if lane.waiting is None:
                    return
                lane.current, lane.waiting = lane.waiting, None
        finally:
            del self._lanes[key]

    def _applied(self, job: Job, result: object) -> None:
        assert isinstance(result, Applied)
        match result.result:
            case Registered() as registered:
                self._counters.count("register_committed")
                self._answer(job, registered)
            case Refused(reason, detail):
                self._counters.count(f"register_refused_{translate(reason)}")
                _LOG.debug("register refused", reason=reason, detail=detail)
            case other:
                raise AssertionError(f"a register ended as {other!r}")

    def _answer(self, job: Job, registered: Registered) -> None:
        datagram = answer(job.admitted, registered)
        if datagram is not None:
            job.reply(Answer(job.source, datagram))


def _lane(admitted: Admitted) -> Hashable:
    """Give one lane to an agent, and one to each set of prefixes of a plain LISP client."""
    if not admitted.row.lisp_key:
        return admitted.peer
    return admitted.peer, tuple(offer.prefix for offer in admitted.command.offers)
