"""Map-Registers: admitted, proposed one at a time for each peer, acknowledged when applied.

An unchanged re-registration is answered from the state while the lease is fresh, and the peer
counts as seen; without a lease nothing is acknowledged, and the agent goes to another server.
"""

import asyncio
import ipaddress
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from wgmap.addresses import IPAddress
from wgmap.clock import now
from wgmap.log import Log
from wgmap.metrics.families import Histogram
from wgmap.wg.device import DeviceError
from wgmap_cluster.feed import Answer, Forward
from wgmap_cluster.fsm.registration import classify, is_in_force
from wgmap_cluster.fsm.results import Applied, Refused, Registered, Taken
from wgmap_cluster.raft.interface import Outcome, Proposal
from wgmap_cluster.replica.admission import (
    AdmissionError,
    Admitted,
    Claim,
    admit,
    as_address,
    claim,
    translate,
)
from wgmap_cluster.replica.core import Core
from wgmap_cluster.replica.notify import answer
from wgmap_cluster.replica.proposing import NotReadByAllError
from wgmap_cluster.replica.repetitions import Known, Repetitions, stands

MAX_IN_FLIGHT = 4096  # peers whose register is being committed; more: dropped and counted
PROPOSAL_S = 1.5  # for all attempts at one register
ATTEMPTS = 3
AGAIN_S = 0.02  # between them
Reply: TypeAlias = Callable[[Answer], None]
_LOG = Log("replica.registrations")


class Outer(Protocol):
    """Knows from where control tunnels come."""

    async def is_outer(self, control: IPAddress, rloc: IPAddress) -> bool:
        """Tell whether the tunnel of that control address comes from ``rloc`` now.

        Raises DeviceError where the tunnels cannot be looked at.
        """
        ...

    def last_outer(self, control: IPAddress) -> IPAddress | None:
        """Return where that tunnel came from a while ago at most; None: not known.

        Raises DeviceError where what was seen then cannot be read.
        """
        ...


class Asked(NamedTuple):
    """A register as it came, with the way back to who sent it."""

    forward: Forward
    reply: Reply
    came_at: float


@dataclass(slots=True)
class Job:
    """A register that was admitted."""

    admitted: Admitted
    claimed: Claim
    outer: tuple[IPAddress, ...]  # where the tunnel was found to come from
    asked: Asked


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
        self._repetitions = Repetitions()
        self._lanes: dict[Hashable, Lane] = {}
        self._checking = 0
        self.took = Histogram()  # from its coming to the answer

    @property
    def in_flight(self) -> int:
        """How many registers are looked at, and peers have one being committed."""
        return len(self._lanes) + self._checking

    def handle(self, forward: Forward, reply: Reply) -> None:
        """Take one datagram; the answer, if there is one, goes to ``reply``, now or later."""
        self._counters.count("register.received")
        try:
            source, state = as_address(forward.source[0]), self._core.machine.state
            known = self._repetitions.find(state, source, forward.datagram)
            claimed = known or claim(state, source, forward.datagram)
        except AdmissionError as error:
            self._refused(error)
            return
        if self._checking >= MAX_IN_FLIGHT:
            self._counters.count("register.overload")
            return
        self._checking += 1
        self._core.spawn(self._check(claimed, Asked(forward, reply, now())))

    async def _check(self, claimed: Claim | Known, asked: Asked) -> None:
        """Look where the tunnel comes from, and admit the register or not."""
        try:
            outer = await self._outer_of(claimed)
            state = self._core.machine.state
            if isinstance(claimed, Known):
                if outer == claimed.outer and stands(state, claimed):
                    self._repeated(claimed, asked)
                    return
                source = as_address(asked.forward.source[0])
                claimed = claim(state, source, asked.forward.datagram)
            self._admitted(Job(admit(state, claimed, outer), claimed, outer, asked))
        except AdmissionError as error:
            self._refused(error)
        except DeviceError as error:
            self._counters.count("register.tunnel_unknown")
            _LOG.warning("cannot tell where a control tunnel comes from", reason=error)
        finally:
            self._checking -= 1

    async def _outer_of(self, claimed: Claim | Known) -> tuple[IPAddress, ...]:
        """Return the one address that needs it and has it: the tunnel comes from there.

        Looking on would mean another reading of the device, and a register waits for it.
        """
        control = ipaddress.ip_address(claimed.row.control_address)
        if isinstance(claimed, Known) and self._is_as_before(control, claimed):
            return claimed.outer
        for address in claimed.asked:
            if await self._outer.is_outer(control, address):
                return (address,)
        return ()

    def _is_as_before(self, control: IPAddress, known: Known) -> bool:
        """Tell whether the last reading found what an earlier one did.

        All agents repeat themselves every minute: were each worth a reading, a device of thousands
        would be read without a pause. Who has moved says something else.
        """
        last = self._outer.last_outer(control)
        return last is not None and all((last == a) == (a in known.outer) for a in known.asked)

    def _refused(self, error: AdmissionError) -> None:
        self._counters.count(f"register.refused.{error.refusal}")
        _LOG.debug("register refused", reason=error.refusal, detail=error.detail)

    def _admitted(self, job: Job) -> None:
        admitted = job.admitted
        if admitted.dropped:
            self._counters.count("register.locators_dropped", admitted.dropped)
        standing = self._standing(admitted)
        if standing is None:
            self._propose(job)
        elif not self._fresh():
            self._counters.count("register.not_fresh")
        else:
            self._counters.count(f"register.{standing.taken}")
            self._seen(admitted.peer)
            said = self._answer(job, standing)
            if said is not None and standing.taken is Taken.REPEATED and not admitted.row.lisp_key:
                state = self._core.machine.state
                self._repetitions.keep(state, job.claimed, job.outer, admitted.dropped, said)

    def _repeated(self, known: Known, asked: Asked) -> None:
        if known.dropped:
            self._counters.count("register.locators_dropped", known.dropped)
        if not self._fresh():
            self._counters.count("register.not_fresh")
            return
        self._counters.count(f"register.{Taken.REPEATED}")
        self._seen(known.peer)
        self._say(asked, known.answer)

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
            self._counters.count("register.coalesced")
            self._queue(lane, job)
        elif len(self._lanes) >= MAX_IN_FLIGHT:
            self._counters.count("register.overload")
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
                await self._commit(lane)
                if lane.waiting is None:
                    return
                lane.current, lane.waiting = lane.waiting, None
        finally:
            del self._lanes[key]

    async def _commit(self, lane: Lane) -> None:
        try:
            proposal = await self._proposed(lane)
        except NotReadByAllError as error:
            self._counters.count("register.needs_upgrade")
            _LOG.warning("a register cannot be committed", reason=error)
            return
        if proposal.outcome is Outcome.APPLIED:
            self._applied(lane.current, proposal.result)
        else:
            self._counters.count("register.not_committed")

    async def _proposed(self, lane: Lane) -> Proposal:
        """Propose a register, and again where a leader took it along when it died.

        A register may be repeated: one that was committed after all is answered as it stands. The
        agent would come again only later, and what it waits for shows as silence of its flows.
        """
        end, attempts = now() + PROPOSAL_S, 1
        while True:
            command, left = lane.current.admitted.command, end - now()
            proposal = await self._core.proposer.propose(command, left)
            over = proposal.outcome is Outcome.APPLIED or attempts >= ATTEMPTS
            if over or now() + 2 * AGAIN_S >= end:
                return proposal
            attempts += 1
            self._counters.count("register.proposed_again")
            await asyncio.sleep(AGAIN_S)

    def _applied(self, job: Job, result: object) -> None:
        assert isinstance(result, Applied)
        match result.result:
            case Registered() as registered:
                self._counters.count("register.committed")
                self._answer(job, registered)
            case Refused(reason, detail):
                self._counters.count(f"register.refused.{translate(reason)}")
                _LOG.debug("register refused", reason=reason, detail=detail)
            case other:
                raise AssertionError(f"a register ended as {other!r}")

    def _answer(self, job: Job, registered: Registered) -> bytes | None:
        datagram = answer(job.admitted, registered)
        if datagram is not None:
            self._say(job.asked, datagram)
        return datagram

    def _say(self, asked: Asked, datagram: bytes) -> None:
        self.took.observe(now() - asked.came_at)
        asked.reply(Answer(asked.forward.source, datagram))


def _lane(admitted: Admitted) -> Hashable:
    """Give one lane to an agent, and one to each set of prefixes of a plain LISP client."""
    if not admitted.row.lisp_key:
        return admitted.peer
    return admitted.peer, tuple(offer.prefix for offer in admitted.command.offers)
