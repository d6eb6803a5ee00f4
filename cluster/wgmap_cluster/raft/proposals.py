"""Proposals: every one ends as applied, not applied, or unknown, within its own deadline.

Cures P5 (request ids that restart at 0, so that a restarted server takes another request's success
for its own) and P9 (callbacks that never fire).
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wgmap_cluster.raft.interface import Outcome, Proposal, RefusedError
from wgmap_cluster.raft.library import Library, now
from wgmap_cluster.raft.membership import REGULAR
from wgmap_cluster.raft.messages import Propose, Proposed

if TYPE_CHECKING:
    from wgmap_cluster.raft.wal import Entry

Done = Callable[[Proposal], None]
_MESSAGE_BYTES = 512 * 1024
NO_QUORUM = "the leader has no quorum"


@dataclass(slots=True)
class _Pending:
    command: bytes
    deadline: float
    done: Done
    asked: str | None = None  # the server it was sent to, or this one
    term: int = 0  # with asked: the term in which it was appended, 0: not known yet


@dataclass(slots=True)
class _Room:
    """How much a leader may append before some of what it has is committed."""

    entries: int
    size: int  # bytes of commands

    def take(self, command: bytes) -> bool:
        """Use it for a command; False where there is none left."""
        if self.entries <= 0 or self.size <= 0:
            return False
        self.entries -= 1
        self.size -= len(command)
        return True


class Proposals:
    """The proposals made on one server, and those that others sent to it as the leader."""

    def __init__(self, node: Library) -> None:
        self._node = node
        self._pending: dict[int, _Pending] = {}
        self._pending_bytes = 0
        self._queue: deque[int] = deque()
        self._remote: list[tuple[str, Propose]] = []  # of this tick
        self._appended: dict[int, list[int]] = {}  # index -> requests waiting for it
        self._next_id = node.rng.getrandbits(48) << 14  # unique to this incarnation (P5)
        self.translate: Callable[[bytes], bytes] = lambda command: command
        self.appended: Callable[[Entry], None] = lambda _entry: None
        self.hold_until = float("-inf")  # as leader, append nothing: leadership is handed over
        self.ended: list[tuple[Done, Proposal]] = []  # to be told after the sync

    def add(self, command: bytes, deadline: float, done: Done) -> None:
        """Take a command, which begins with the byte that tells its kind."""
        settings, size = self._node.settings, self._pending_bytes + len(command)
        if len(self._pending) >= settings.pending_limit or size > settings.pending_bytes:
            self.ended.append((done, Proposal(Outcome.NOT_APPLIED, reason="too many proposals")))
            return
        self._next_id += 1
        self._pending_bytes = size
        self._pending[self._next_id] = _Pending(command, deadline, done)
        self._queue.append(self._next_id)

    def dispatch(self) -> bool:
        """Append what waits, or send it to the leader; True if something was appended."""
        node = self._node
        if self._queue and not node.leading:
            leader = node.reachable_leader()
            if leader is not None:
                self._forward(leader)
        last = node.wal.last
        for name, message in self._take_remote():
            self._append_remote(name, message)
        if self._queue and node.leading and now() >= self.hold_until:
            self._append_own()
        return node.wal.last > last

    def _append_own(self) -> None:
        room, name, term = self._room(), self._node.name, self._node.term
        while self._queue:
            request = self._queue.popleft()
            pending = self._pending.get(request)
            if pending is None:
                continue
            if not room.take(pending.command):
                self._end(request, Proposal(Outcome.NOT_APPLIED, reason=NO_QUORUM))
                continue
            try:
                index = self._append(pending.command)
            except RefusedError as error:
                self._end(request, Proposal(Outcome.NOT_APPLIED, reason=str(error)))
                continue
            pending.asked, pending.term = name, term
            self._appended.setdefault(index, []).append(request)

    def _room(self) -> _Room:
        wal, settings = self._node.wal, self._node.settings
        uncommitted = wal.slice(self._node.commit + 1, wal.last + 1)
        size = sum(len(command) for command, _, _ in uncommitted)
        entries = settings.uncommitted_limit - len(uncommitted)
        return _Room(entries, settings.uncommitted_bytes - size)

    def _append(self, command: bytes) -> int:
        wal, regular = self._node.wal, command[:1] == REGULAR
        if not regular:
            command = self.translate(command)
        index = wal.last + 1
        entry = (command, index, self._node.term)
        wal.append(entry)
        if not regular:
            self.appended(entry)
        return index

    def _forward(self, leader: str) -> None:
        items: list[tuple[int, bytes]] = []
        size = 0
        while self._queue:
            request = self._queue.popleft()
            pending = self._pending.get(request)
            if pending is None:
                continue
            pending.asked = leader
            items.append((request, pending.command))
            size += len(pending.command)
            if size >= _MESSAGE_BYTES:
                self._node.send(leader, Propose(self._node.term, tuple(items)))
                items, size = [], 0
        if items:
            self._node.send(leader, Propose(self._node.term, tuple(items)))

    def on_propose(self, name: str, message: Propose) -> None:
        """Take what another server sends; it is appended with this server's own."""
        self._remote.append((name, message))

    def _take_remote(self) -> list[tuple[str, Propose]]:
        remote, self._remote = self._remote, []
        return remote

    def _append_remote(self, name: str, message: Propose) -> None:
        """Append what another server sent, if this one leads."""
        node = self._node
        leads = node.leading and node.term == message.term and now() >= self.hold_until
        room = self._room()
        if not leads or room.entries <= 0 or room.size <= 0:
            refused = tuple((request, 0) for request, _ in message.items)
            node.send(name, Proposed(node.term, refused, NO_QUORUM if leads else ""))
            return
        placed, reason = list[tuple[int, int]](), ""
        for request, command in message.items:
            try:
                placed.append((request, self._append(command)))
            except RefusedError as error:
                placed.append((request, 0))
                reason = str(error)
        node.send(name, Proposed(node.term, tuple(placed), reason))

    def on_proposed(self, name: str, message: Proposed) -> None:
        """Learn where the leader put this server's commands."""
        for request, index in message.items:
            pending = self._pending.get(request)
            if pending is None or pending.asked != name or pending.term:
                continue
            if index == 0:
                self._refused(request, pending, message.reason)
            elif index <= self._node.applied:
                self._end(request, Proposal(Outcome.UNKNOWN, reason="already applied past it"))
            else:
                pending.term = message.term
                self._appended.setdefault(index, []).append(request)

    def _refused(self, request: int, pending: _Pending, reason: str) -> None:
        """Try the next leader, until the deadline: a refusal is certain.

        Under a new id, so that no late copy of this refusal is taken for one of the next attempt.
        """
        if reason:
            self._end(request, Proposal(Outcome.NOT_APPLIED, reason=reason))
            return
        if pending.asked is not None:
            self._node.refused_by(pending.asked)
        pending.asked = None
        del self._pending[request]
        self._next_id += 1
        self._pending[self._next_id] = pending
        self._queue.append(self._next_id)

    def lost(self, name: str) -> None:
        """End what ``name`` was asked over a connection that is gone: it may have arrived."""
        for request, pending in list(self._pending.items()):
            if pending.asked == name and not pending.term:
                self._end(request, Proposal(Outcome.UNKNOWN, reason=f"lost {name}"))

    def applied(self, index: int, term: int, result: object) -> None:
        """Give whoever waits for the index an outcome: an entry was applied there."""
        for request in self._appended.pop(index, ()):
            pending = self._pending.get(request)
            if pending is None:
                continue
            if pending.term == term:
                self._end(request, Proposal(Outcome.APPLIED, index, result))
            else:  # another entry has its place for ever
                self._end(request, Proposal(Outcome.NOT_APPLIED, reason="a new leader dropped it"))

    def skipped(self, index: int) -> None:
        """End what waits for an entry up to ``index``: a snapshot covers it."""
        for passed in [at for at in self._appended if at <= index]:
            for request in self._appended.pop(passed):
                self._end(request, Proposal(Outcome.UNKNOWN, reason="a snapshot covers it"))

    def expire(self) -> None:
        """End what is past its deadline."""
        time = now()
        for request, pending in list(self._pending.items()):
            if pending.deadline >= time:
                continue
            if pending.asked is None:
                self._end(request, Proposal(Outcome.NOT_APPLIED, reason="no leader"))
            else:
                self._end(request, Proposal(Outcome.UNKNOWN, reason="no answer in time"))

    def end_all(self, reason: str) -> None:
        """End everything, because this server stops."""
        for request, pending in list(self._pending.items()):
            outcome = Outcome.NOT_APPLIED if pending.asked is None else Outcome.UNKNOWN
            self._end(request, Proposal(outcome, reason=reason))

    def _end(self, request: int, proposal: Proposal) -> None:
        pending = self._pending.pop(request, None)
        if pending is not None:
            self._pending_bytes -= len(pending.command)
            self.ended.append((pending.done, proposal))
