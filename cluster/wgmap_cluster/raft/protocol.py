"""Append entries and snapshots: what the leader sends, what a follower does with it.

Cures P1 (truncating what follows although nothing conflicts), P2 (committing by a message that
matches no log), P6 (acknowledgements without a term), P11 (an entry near the batch size), P12
(going back one entry per heartbeat) and P13 (a second install rolls the state back).
"""

from dataclasses import dataclass
from typing import Any, BinaryIO

from wgmap_cluster.raft.elections import Elections
from wgmap_cluster.raft.interface import LogError
from wgmap_cluster.raft.library import Library, now
from wgmap_cluster.raft.messages import AppendEntries, AppendReply, Install, InstallReply
from wgmap_cluster.raft.snapshot import SnapshotMeta, SnapshotStore
from wgmap_cluster.raft.wal import Entry

_ENTRY_OVERHEAD = 24


class ContradictionError(LogError):
    """The leader contradicts what is committed here: somebody lost what it had acknowledged."""


@dataclass(slots=True)
class _Transfer:
    """A snapshot on its way to one server."""

    meta: SnapshotMeta
    file: BinaryIO
    total: int
    sent: int = 0
    taken: int = 0
    progress: float = 0.0


class Leading:
    """The leader's side: what every other server has, and what it is sent next."""

    def __init__(self, node: Library, elections: Elections, snapshots: SnapshotStore) -> None:
        self._node, self._elections, self._snapshots = node, elections, snapshots
        self.hungry: set[str] = set()  # servers that can take more before the next heartbeat
        self.round = 0  # counts questions to the quorum; replies carry it back
        self._rounds: dict[str, tuple[int, int]] = {}  # per server: (term, round) last answered
        self._rewound: dict[str, int] = {}  # per server: round of the last step back
        self._transfers: dict[str, _Transfer] = {}
        self._built_for: tuple[int, ...] = ()  # what _built holds is of this state
        self._built: dict[tuple[int, bool], tuple[AppendEntries, int]] = {}

    def count(self) -> None:
        """Commit what a quorum has on its disks; this leader has there what it has synced.

        By counting only up to an entry of its own term, with what is before it (Raft, 5.4.2).
        """
        core = self._node
        voters = core.voters()
        held = [index for node, index in core.match_index.items() if node.id in voters]
        held = sorted([*held, core.wal.synced], reverse=True)
        index = held[len(held) // 2]
        if core.wal.term_at(index) == core.term:
            core.raise_commit(index)

    def lags(self) -> dict[str, int]:
        """Return how many entries each of the others is not known to have."""
        last = self._node.wal.last
        return {str(node.id): last - index for node, index in self._node.match_index.items()}

    def targets(self) -> list[Any]:
        """Return the nodes that get entries: the voters, and a server that is being added."""
        return list(self._node.match_index)

    def next_round(self) -> int:
        """Begin a round: a reply that carries its number was sent after this call."""
        self.round += 1
        return self.round

    def confirmed(self, term: int, round_number: int) -> bool:
        """Tell whether a quorum has answered a message of this round or a later one."""
        return self._elections.quorum(
            {name for name, seen in self._rounds.items() if seen >= (term, round_number)}
        )

    def answering(self) -> set[str]:
        """Return who has answered this leader in its term, and just now."""
        core, since = self._node, now() - self._node.settings.election_min_s
        recent = {str(node.id) for node, at in core.answered.items() if at > since}
        return {n for n in recent if self._rounds.get(n, (0, 0))[0] == core.term}

    def connection_changed(self, name: str) -> None:
        """Forget what was in flight: go back to what is known to have arrived."""
        for node, match in self._node.match_index.items():
            if node.id == name and match:
                self._node.next_index[node] = match + 1
        transfer = self._transfers.get(name)
        if transfer is not None:
            transfer.sent = transfer.taken

    def installs_from(self) -> int | None:
        """Return the lowest index of a snapshot on its way; the log behind it must be kept.

        Kept for a while only: a server that died with an install under way may never come back.
        """
        for name, transfer in list(self._transfers.items()):
            if self._stalled(transfer):
                self._end_transfer(name)
        return min((t.meta.index for t in self._transfers.values()), default=None)

    def _stalled(self, transfer: _Transfer) -> bool:
        return now() - transfer.progress > self._node.settings.install_timeout_s

    def stop_leading(self) -> None:
        """Drop what only a leader holds."""
        for name in list(self._transfers):
            self._end_transfer(name)

    def send(self, node: Any, room: int) -> None:
        """Send to one server: at least a heartbeat, at most about ``room`` bytes."""
        core, name = self._node, str(node.id)
        if core.next_index[node] <= core.wal.first:
            self._send_snapshot(name, room)
            return
        self._end_transfer(name)
        first = True
        while first or (room > 0 and core.next_index[node] <= core.wal.last):
            room -= self._send_entries(node, name, room)
            first = False

    def _batch(self, start: int) -> tuple[list[Entry], int]:
        """Return whole entries up to the batch size, always one if there is one (P11)."""
        wal, limit = self._node.wal, self._node.settings.batch_bytes
        size, result = 0, list[Entry]()
        for entry in wal.slice(start, min(start + 2000, wal.last + 1)):
            more = len(entry[0]) + _ENTRY_OVERHEAD
            if result and size + more > limit:
                break
            size += more
            result.append(entry)
        return result, size

    def _send_entries(self, node: Any, name: str, room: int) -> int:
        """Send one message; return its size."""
        core = self._node
        message, size = self._message(core.next_index[node] - 1, empty=room <= 0)
        core.send(name, message)
        core.next_index[node] += len(message.entries)
        return size

    def _message(self, previous: int, *, empty: bool) -> tuple[AppendEntries, int]:
        """Return the message of what follows, with its size; one object for all who get the same.

        So it is encoded once.
        """
        core = self._node
        term = core.wal.term_at(previous)
        if term is None:
            raise AssertionError(f"somebody is to get entries after {previous}")
        state = (core.term, self.round, core.commit, core.wal.last)
        if state != self._built_for:
            self._built_for, self._built = state, {}
        built = self._built.get((previous, empty))
        if built is None:
            entries, size = ([], 0) if empty else self._batch(previous + 1)
            head = (core.term, self.round, previous, term, core.commit)
            built = AppendEntries(*head, tuple(entries)), size + _ENTRY_OVERHEAD
            self._built[previous, empty] = built
        return built

    def on_reply(self, name: str, message: AppendReply) -> None:
        """Count an acknowledgement, if it is of this term (P6)."""
        core = self._node
        if self._elections.observe_term(message.term):
            return
        node = self._answering(name, message.term, message.round)
        if node is None:
            return
        if message.success:
            core.match_index[node] = max(core.match_index[node], message.at)
            core.next_index[node] = max(core.next_index[node], core.match_index[node] + 1)
        elif message.round >= self._rewound.get(name, 0):  # one step back per round trip
            core.next_index[node] = max(message.at, core.match_index[node] + 1, 2)
            self._rewound[name] = self.next_round()
        if core.next_index[node] <= core.wal.last:
            self.hungry.add(name)

    def _answering(self, name: str, term: int, round_number: int) -> Any:
        """Note that a server answered this leader; None if it is not its business."""
        core = self._node
        if not core.leading or term != core.term:
            return None
        for node in core.match_index:
            if node.id == name:
                core.answered[node] = now()
                self._rounds[name] = max(self._rounds.get(name, (0, 0)), (term, round_number))
                return node
        return None

    # Snapshots: at most a window is in flight.
    def _send_snapshot(self, name: str, room: int) -> None:
        settings = self._node.settings
        transfer = self._current_transfer(name)
        sent = False
        while transfer.sent < transfer.total and self._in_flight(transfer) < settings.window_bytes:
            if room <= 0 and sent:
                break
            room -= self._send_chunk(name, transfer, settings.chunk_bytes)
            sent = True
        if not sent:
            self._send_chunk(name, transfer, 0)  # a heartbeat

    @staticmethod
    def _in_flight(transfer: _Transfer) -> int:
        return transfer.sent - transfer.taken

    def _current_transfer(self, name: str) -> _Transfer:
        transfer = self._transfers.get(name)
        if transfer is not None and self._stalled(transfer):
            self._end_transfer(name)
            transfer = None
        return transfer or self._begin_transfer(name)

    def _begin_transfer(self, name: str) -> _Transfer:
        opened = self._snapshots.open()
        if opened is None or opened[0].index < self._node.wal.first:
            raise AssertionError("the log was cut without a snapshot")
        meta, file = opened
        total = file.seek(0, 2)
        transfer = self._transfers[name] = _Transfer(meta, file, total, progress=now())
        return transfer

    def _send_chunk(self, name: str, transfer: _Transfer, size: int) -> int:
        core = self._node
        transfer.file.seek(transfer.sent)
        data = transfer.file.read(size)
        head = (core.term, self.round, transfer.meta.index, transfer.meta.term)
        core.send(name, Install(*head, transfer.sent, transfer.total, data))
        transfer.sent += len(data)
        return len(data)

    def on_install_reply(self, name: str, message: InstallReply) -> None:
        """Go on with a snapshot, or with entries once it is installed."""
        core = self._node
        if self._elections.observe_term(message.term):
            return
        node = self._answering(name, message.term, message.round)
        if node is None:
            return
        if message.done:
            core.match_index[node] = max(core.match_index[node], message.last_index)
            core.next_index[node] = max(core.next_index[node], message.last_index + 1)
            core.figures.snapshots_sent += name in self._transfers
            self._end_transfer(name)
            self.hungry.add(name)
            return
        transfer = self._transfers.get(name)
        if transfer is not None and transfer.meta.index == message.last_index:
            self._advance(transfer, message.offset)
            if self._in_flight(transfer) <= core.settings.window_bytes // 2:
                self.hungry.add(name)

    def _advance(self, transfer: _Transfer, offset: int) -> None:
        if offset > transfer.taken:
            transfer.taken, transfer.progress = offset, now()
        elif offset < transfer.taken:  # it lost what it had (a restart): begin anew
            transfer.sent = transfer.taken = offset

    def _end_transfer(self, name: str) -> None:
        transfer = self._transfers.pop(name, None)
        if transfer is not None:
            transfer.file.close()


class Following:
    """The follower's side."""

    def __init__(self, node: Library, elections: Elections) -> None:
        self._node, self._elections = node, elections

    def on_append(self, name: str, message: AppendEntries) -> bool:
        """Take entries from the leader; True where the log was truncated.

        Raises ContradictionError rather than touch what is committed.
        """
        if message.term < self._node.term:
            self._elections.refuse_old_leader(name, message.round)
            return False
        self._elections.heard(name, message.term)
        resume = self._mismatch(message)
        if resume is not None:
            self._reply(name, message, success=False, at=resume)
            return False
        truncated = self._merge(message.entries)
        matched = max(message.prev_index + len(message.entries), self._node.wal.first)
        self._reply(name, message, success=True, at=matched)
        self._node.raise_commit(min(message.commit, matched))  # P2: only what is known to match
        return truncated

    def _mismatch(self, message: AppendEntries) -> int | None:
        """Return where the leader should resume, None where the logs meet (P12: one jump)."""
        wal, commit = self._node.wal, self._node.commit
        if message.prev_index > wal.last:
            return wal.last + 1
        term = wal.term_at(message.prev_index)
        if term is None or term == message.prev_term:
            return None  # before the first entry everything is committed, so it matches
        if message.prev_index <= commit:
            raise ContradictionError(
                f"{wal.path}: the leader has another entry at {message.prev_index},"
                f" which is committed here (up to {commit})"
            )
        return commit + 1

    def _merge(self, entries: tuple[Entry, ...]) -> bool:
        """Add what is new; truncate only where an entry conflicts (P1)."""
        wal = self._node.wal
        for position, (_, index, term) in enumerate(entries):
            if index > wal.last:
                wal.append(*entries[position:])
                return False
            if index <= wal.first or wal.term_at(index) == term:
                continue
            if index <= self._node.commit:
                raise ContradictionError(
                    f"{wal.path}: the leader wants to replace entry {index},"
                    f" which is committed here (up to {self._node.commit})"
                )
            wal.truncate(index)
            wal.append(*entries[position:])
            return True
        return False

    def _reply(self, name: str, message: AppendEntries, *, success: bool, at: int) -> None:
        self._node.send(name, AppendReply(message.term, message.round, success, at))

    def on_install(self, name: str, message: Install, snapshots: SnapshotStore) -> bool:
        """Take a piece of a snapshot; True once it is whole and newer than what is applied."""
        if message.term < self._node.term:
            self._elections.refuse_old_leader(name, message.round)
            return False
        self._elections.heard(name, message.term)
        if message.last_index <= self._node.commit:  # P13: never go back
            snapshots.drop_incoming()
            self.reply_install(name, message, message.total, done=True)
            return False
        whose = (message.term, message.last_index)
        offset = snapshots.receive(whose, message.total, message.offset, message.data)
        if offset >= message.total:
            return True
        self.reply_install(name, message, offset, done=False)
        return False

    def reply_install(self, name: str, message: Install, offset: int, *, done: bool) -> None:
        """Tell the leader how far a snapshot has come."""
        head = (message.term, message.round, message.last_index)
        self._node.send(name, InstallReply(*head, offset, done))
