"""The replicated log on an asyncio loop: class RaftLog.

The loop's thread does everything but write snapshots, fdatasync included: while the disk blocks,
this server is silent, and another one is elected.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from random import Random

from wgmap_cluster.raft.disk import Disk, RealDisk
from wgmap_cluster.raft.interface import (
    MAX_COMMAND_BYTES,
    LogError,
    LogStatus,
    Member,
    Outcome,
    Proposal,
    RefusedError,
    StateMachine,
)
from wgmap_cluster.raft.library import now
from wgmap_cluster.raft.membership import HAND_OVER, REGULAR, Change
from wgmap_cluster.raft.messages import Ask
from wgmap_cluster.raft.node import RaftNode
from wgmap_cluster.raft.settings import Settings
from wgmap_cluster.raft.transport import MeshTransport, NoTransport, parse_address

log = logging.getLogger(__name__)

MAX_NOTE_BYTES = 1024
STORE_BYTES = 8  # of a hello's last field; the id of the cluster follows
_CHECK_S = 0.25
_MAX_ASKED = 16  # questions of others that are being answered
_RETRY_S = 0.05


class RaftLog:
    """One server of the replicated log; implements ReplicatedLog and ClusterControl.

    ``members`` are the servers of the first set, this one among them, the same everywhere; read
    only while ``state_dir`` is empty, afterwards the log decides. ``bind_device`` binds the port
    and every connection to an interface. ``cluster_id`` tells which cluster this server belongs
    to, b"" while it belongs to none: servers of two clusters never connect. With ``alone`` it
    listens nowhere and can never have company (its address is only a name). ``on_fatal`` is
    called once, with what went wrong, when the log cannot go on; by then nothing is acknowledged
    any more and the process must end.
    """

    def __init__(  # noqa: PLR0913  # what a server is made of
        self,
        name: str,
        members: Sequence[Member],
        state_dir: Path,
        machine: StateMachine,
        *,
        bind_device: str | None = None,
        settings: Settings | None = None,
        cluster_id: Callable[[], bytes] = lambda: b"",
        on_fatal: Callable[[LogError], None] | None = None,
        disk: Disk | None = None,
        alone: bool = False,
    ) -> None:
        self._name, self._members = name, tuple(members)
        self._state_dir, self._machine = state_dir, machine
        self._device, self._settings = bind_device, settings or Settings()
        self._cluster_id = cluster_id
        self._on_fatal, self._disk = on_fatal, disk or RealDisk()
        self._alone = alone
        self._own = next((m for m in self._members if m.name == name), None)
        if self._own is None:
            msg = f"{name!r} is not among the members"
            raise ValueError(msg)
        for member in self._members:
            parse_address(member)
        self._restored: list[Callable[[], None]] = []
        self._answer: Callable[[bytes], Awaitable[bytes]] | None = None
        self._asked: set[asyncio.Task[None]] = set()  # questions of others
        self._node: RaftNode | None = None
        self._transport: MeshTransport | NoTransport | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._woken: asyncio.Handle | None = None
        self._check_due = 0.0
        self.failure: LogError | None = None  # why it stopped by itself

    async def start(self) -> None:
        """See ReplicatedLog."""
        if self._node is not None or self._own is None:
            raise AssertionError("started twice")
        self._loop = asyncio.get_running_loop()
        self._transport = (
            NoTransport()
            if self._alone
            else MeshTransport(self._own, self._settings, self._device, self)
        )
        self._node = RaftNode(
            self._name, self._members, self._state_dir, self._machine, self._transport,
            disk=self._disk, settings=self._settings, rng=Random(),  # noqa: S311  # time-outs
            restored=self._on_installed,
        )  # fmt: skip
        self._node.questions.asked = self._on_asked
        await self._transport.start()
        self._timer = self._loop.call_soon(self._on_timer)  # type: ignore[assignment]

    async def stop(self) -> None:
        """See ReplicatedLog."""
        node, self._node = self._node, None
        self._stop_ticking()
        for task in self._asked:
            task.cancel()
        if self._transport is not None:
            await self._transport.stop()
        if node is not None and self.failure is None:
            node.close()

    # Ticks.
    def _on_timer(self) -> None:
        if self._loop is None or self._transport is None:
            return
        self._timer = self._loop.call_later(self._settings.heartbeat_s / 2, self._on_timer)
        if now() >= self._check_due:
            self._check_due = now() + _CHECK_S
            self._transport.check()
        self._tick()

    def _wake(self) -> None:
        """Tick in the loop's next turn; whatever comes until then shares its sync."""
        if self._woken is None and self._loop is not None and self._node is not None:
            self._woken = self._loop.call_soon(self._on_wake)

    def _on_wake(self) -> None:
        self._woken = None
        self._tick()

    def _tick(self) -> None:
        if self._node is None:
            return
        failure: LogError | None = LogError("a bug in the log; see the traceback")
        try:
            again = self._node.tick()
            failure = None
        except LogError as error:
            again, failure = False, error
        finally:
            if failure is not None:
                self._fail(failure)
        if again:
            self._wake()

    def _fail(self, failure: LogError) -> None:
        """Stop at once; nothing that was decided in this tick is acknowledged."""
        log.critical("the log stops: %s", failure)
        self.failure = failure
        node, self._node = self._node, None
        self._stop_ticking()
        if self._transport is not None and self._loop is not None:
            self._stopping = self._loop.create_task(self._transport.stop())
        if node is not None:
            node.abandon()
        if self._on_fatal is not None:
            self._on_fatal(failure)

    def _stop_ticking(self) -> None:
        for handle in (self._timer, self._woken):
            if handle is not None:
                handle.cancel()
        self._timer = self._woken = None

    # From the transport.
    def on_frame(self, name: str, frame: bytes) -> None:
        """See Events."""
        if self._node is not None:
            self._node.receive(name, frame)
            self._wake()

    def on_change(self, name: str) -> None:
        """See Events."""
        if self._node is not None:
            self._node.connection_changed(name)
            self._wake()

    def admit(self, name: str, store: bytes) -> bool:
        """See Events."""
        disk, cluster_id = store[:STORE_BYTES], store[STORE_BYTES:]
        own = self._cluster_id()
        if own and cluster_id and own != cluster_id:
            log.error("%s belongs to another cluster, %s", name, cluster_id.hex())
            return False
        if self._node is None or not self._node.others.admit(name, disk):
            return False
        self._wake()
        return True

    def store(self) -> bytes:
        """See Events."""
        return self._running().others.store() + self._cluster_id()

    # What others call.
    async def propose(self, command: bytes, deadline_s: float = 1.5) -> Proposal:
        """See ReplicatedLog. The result is an ApplyFailed where apply raised, which is a bug."""
        if len(command) > MAX_COMMAND_BYTES:
            msg = f"a command of {len(command)} bytes; at most {MAX_COMMAND_BYTES}"
            raise ValueError(msg)
        return await self._propose(REGULAR + command, deadline_s)

    async def _propose(self, command: bytes, deadline_s: float) -> Proposal:
        if self._node is None:
            return Proposal(Outcome.NOT_APPLIED, reason="the log does not run")
        future: asyncio.Future[Proposal] = asyncio.get_running_loop().create_future()

        def done(proposal: Proposal) -> None:
            if not future.done():
                future.set_result(proposal)

        self._node.proposals.add(command, now() + deadline_s, done)
        self._wake()
        return await future

    async def read_barrier(self, deadline_s: float = 1.0) -> int | None:
        """See ReplicatedLog."""
        if self._node is None:
            return None
        future: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

        def done(index: int | None) -> None:
            if not future.done():
                future.set_result(index)

        self._node.reads.add(now() + deadline_s, done)
        self._wake()
        return await future

    def status(self) -> LogStatus:
        """See ReplicatedLog; raises LogError before start() and after the end."""
        node = self._running()
        return LogStatus(
            node.role, node.leader, node.term, node.commit, node.applied, node.wal.last,
            node.others.status(),
        )  # fmt: skip

    def figures(self) -> dict[str, int]:
        """See ReplicatedLog."""
        return {} if self._node is None else self._node.figures_now()

    def publish(self, note: bytes) -> None:
        """See ReplicatedLog; over 1 KiB: ValueError."""
        if len(note) > MAX_NOTE_BYTES:
            msg = f"a note of {len(note)} bytes; at most {MAX_NOTE_BYTES}"
            raise ValueError(msg)
        if self._node is not None:
            self._node.others.publish(note)

    async def ask(self, name: str, question: bytes, deadline_s: float = 1.0) -> bytes | None:
        """See ReplicatedLog."""
        if self._node is None:
            return None
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def told(answer: bytes) -> None:
            if not future.done():
                future.set_result(answer)

        node = self._node
        number = node.questions.ask(name, question, told)
        if number is None:
            return None
        self._wake()
        try:
            async with asyncio.timeout(deadline_s):
                return await future
        except TimeoutError:
            return None
        finally:
            node.questions.forget(number)

    def on_asked(self, answer: Callable[[bytes], Awaitable[bytes]]) -> None:
        """See ReplicatedLog."""
        self._answer = answer

    def _on_asked(self, name: str, message: Ask) -> None:
        if self._loop is not None and self._answer is not None and len(self._asked) < _MAX_ASKED:
            task = self._loop.create_task(self._answered(name, message, self._answer))
            self._asked.add(task)
            task.add_done_callback(self._asked.discard)

    async def _answered(
        self, name: str, message: Ask, answer: Callable[[bytes], Awaitable[bytes]]
    ) -> None:
        data = await answer(message.data)
        if self._node is not None:
            self._node.questions.answer(name, message.id, data)
            self._wake()

    def on_restored(self, callback: Callable[[], None]) -> None:
        """See ReplicatedLog."""
        self._restored.append(callback)

    def _on_installed(self) -> None:
        for callback in self._restored:
            callback()

    def _running(self) -> RaftNode:
        if self._node is None:
            raise self.failure or LogError("the log does not run")
        return self._node

    # ClusterControl.
    def members(self) -> tuple[Member, ...]:
        """Return the servers, as this one knows them."""
        return self._running().membership.members

    async def add_member(self, member: Member, deadline_s: float = 30.0) -> Proposal:
        """Add a server, which must run with an empty state; waits until it has caught up."""
        parse_address(member)
        return await self._change(Change(add=True, member=member), deadline_s)

    async def remove_member(self, name: str, deadline_s: float = 5.0) -> Proposal:
        """Remove a server other than the leader."""
        return await self._change(Change(add=False, member=Member(name, "")), deadline_s)

    async def _change(self, change: Change, deadline_s: float) -> Proposal:
        """Ask again while the leader refuses; a change is idempotent."""
        end = now() + deadline_s
        while True:
            proposal = await self._propose(change.pack(), min(1.5, deadline_s))
            if proposal.outcome is not Outcome.NOT_APPLIED or now() >= end:
                return proposal
            await asyncio.sleep(_RETRY_S)

    async def hand_over(self, target: str | None = None, deadline_s: float = 5.0) -> str:
        """See ClusterControl."""
        end, before, reason = now() + deadline_s, self.status(), "no leader is known"
        while now() < end:
            status = self.status()
            if status.leader is not None and status.leader == target:
                return target
            if status.leader is not None and status.term > before.term and target is None:
                return status.leader
            asked = await self._propose(HAND_OVER + (target or "").encode(), _RETRY_S * 10)
            reason = asked.reason
            await self._await_term(status.term, _RETRY_S * 10)
        raise RefusedError(reason)

    async def _await_term(self, term: int, deadline_s: float) -> None:
        """Wait until a leader of a later term is known here, for so long at most."""
        end = now() + deadline_s
        while now() < end:
            status = self.status()
            if status.term > term and status.leader is not None:
                return
            await asyncio.sleep(_RETRY_S / 2)

    def take_snapshot(self) -> None:
        """Begin a snapshot now (for backups and tests)."""
        node = self._running()
        if not node.snapshots.saving:
            node.take_snapshot()
