"""One server of the log: the library, hardened. Knows no loop, no socket and no thread.

Whoever drives it hands in messages, calls tick() and passes on what comes out. The order inside a
tick is the promise: messages are handled and entries appended, the write-ahead log is synced, and
only then do messages leave and outcomes reach their callers. So nothing is acknowledged, to a
server or to a caller, that a loss of power could take back.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from wgmap_cluster.raft import messages
from wgmap_cluster.raft.bridging import Bridging
from wgmap_cluster.raft.codec import CodecError, decode, encode
from wgmap_cluster.raft.disk import Disk
from wgmap_cluster.raft.elections import Elections
from wgmap_cluster.raft.interface import (
    CannotApplyError,
    LogError,
    Member,
    Outcome,
    Proposal,
    RefusedError,
    StateMachine,
)
from wgmap_cluster.raft.library import Library, now
from wgmap_cluster.raft.membership import (
    CHANGE,
    HAND_OVER,
    MEMBERS,
    REGULAR,
    Membership,
    pack_members,
)
from wgmap_cluster.raft.others import Others
from wgmap_cluster.raft.proposals import Proposals
from wgmap_cluster.raft.protocol import Following, Leading
from wgmap_cluster.raft.questions import Questions
from wgmap_cluster.raft.reads import Reads
from wgmap_cluster.raft.settings import Settings
from wgmap_cluster.raft.snapshot import Background, SnapshotMeta, SnapshotStore, ThreadJob
from wgmap_cluster.raft.succession import Succession
from wgmap_cluster.raft.wal import Entry, WriteAheadLog
from wgmap_cluster.raft.wire import Wire

log = logging.getLogger(__name__)

WAL_NAME, SNAPSHOT_NAME = "raft.wal", "raft.snapshot"
_HOUSEKEEPING_S = 0.01
_HELD = 4  # times the size that starts a snapshot: what an install may hold of the log
_HINT_S = 1.0  # how far the commit index on disk may lag while nothing is written


@dataclass(frozen=True, slots=True)
class ApplyFailed:
    """The result of a command whose apply raised: a bug, recorded alike on every server."""

    kind: str


class RaftNode(Library):
    """A server. ``restored`` is called after the state came from another server's snapshot."""

    def __init__(  # noqa: PLR0913  # what a server is made of
        self,
        name: str,
        members: tuple[Member, ...],
        state_dir: Path,
        machine: StateMachine,
        wire: Wire,
        *,
        disk: Disk,
        settings: Settings,
        rng: Random,
        background: Background = ThreadJob,
        restored: Callable[[], None] = lambda: None,
    ) -> None:
        self._machine, self._wire, self._restored = machine, wire, restored
        self.snapshots = SnapshotStore(disk, state_dir / SNAPSHOT_NAME, background)
        wal = WriteAheadLog(disk, state_dir / WAL_NAME)
        self.membership = self._load(wal, name, members)
        super().__init__(name, self.membership.others(), wal, settings, rng)
        self.others = Others(self, self.membership, wire)
        self.questions = Questions(self)
        self.elections = Elections(self)
        self.leading_side = Leading(self, self.elections, self.snapshots)
        self.following_side = Following(self, self.elections)
        self.reads = Reads(self, self.leading_side)
        self.proposals = Proposals(self)
        self.bridging = Bridging(self, self.elections, self.proposals)
        self.succession = Succession(self, self.proposals, wire.connected)
        self.proposals.translate, self.proposals.appended = self._translate, self._on_appended
        self._inbox: list[tuple[str, bytes]] = []
        self._outbox: list[tuple[str, messages.Message]] = []
        self._ahead: list[tuple[str, messages.Message]] = []
        self._told = (0, 0)  # commit and last index when entries were last sent
        self._was_leading = False
        self._last_leader: str | None = None
        self._housekeeping_due = 0.0
        self._hint_due = 0.0
        self.applied = wal.first if self.snapshots.meta is None else self.snapshots.meta.index
        if self.snapshots.meta is not None:
            machine.restore(self.snapshots.pieces())
            self.raise_commit(self.applied)
        elif wal.first == 1:
            self.raise_commit(2)
        self._set_members()
        if not self.voters():
            self.election_now()  # there is nobody to wait for
        self.apply_committed()

    def _load(self, wal: WriteAheadLog, name: str, members: tuple[Member, ...]) -> Membership:
        """Bring log and snapshot together (P3: keep the log behind a newer snapshot)."""
        meta = self.snapshots.meta
        if meta is None:
            if wal.first != 1:
                msg = f"{wal.path}: begins at {wal.first} and there is no {self.snapshots.path}"
                raise LogError(msg)
            if wal.last == 1:
                wal.append((pack_members(members), 2, 0))
                wal.sync()
            membership = Membership(name, members, 1)
        else:
            if wal.fresh:
                msg = f"{wal.path} is missing beside {self.snapshots.path}: term and vote are lost"
                raise LogError(msg)
            self._join(wal, meta)
            membership = Membership(name, meta.members, meta.index)
        membership.refresh(wal.entries)
        return membership

    def _join(self, wal: WriteAheadLog, meta: SnapshotMeta) -> None:
        if wal.first > meta.index:
            msg = f"{wal.path}: begins at {wal.first}, after the snapshot's {meta.index}"
            raise LogError(msg)
        if wal.term_at(meta.index) != meta.term:
            wal.reset(meta.index, meta.term)

    # In and out.
    def receive(self, name: str, frame: bytes) -> None:
        """Take a frame; it is handled in the next tick."""
        self._inbox.append((name, frame))

    def send(self, name: str, message: messages.Message) -> None:
        """Queue a message; it leaves after the sync of this tick, a leader's entries before it.

        Those promise nothing: this leader counts for them only once it has synced them (Raft
        thesis, 10.2.1), so that its disk and the others' work at the same time.
        """
        queue = self._ahead if isinstance(message, messages.AppendEntries) else self._outbox
        queue.append((name, message))

    def connection_changed(self, name: str) -> None:
        """Take note that a connection came or went."""
        self.leading_side.connection_changed(name)
        if not self._wire.connected(name):
            self.proposals.lost(name)
            self.reads.lost(name)
            if name == self.leader:
                self.elections.lost_leader()
        self.others.tell_soon()

    def tick(self) -> bool:
        """Do what there is to do; True if the next tick should follow at once. Raises LogError."""
        self._handle_inbox()
        if self.leading:
            self.leading_side.count()
        self.library_tick()
        self._look_at_role()
        appended = self.proposals.dispatch()  # counted by this leader in the next tick, synced
        if self.reads.pump() or self._has_news():
            self.send_entries()
        self._feed()
        self._housekeeping()
        self._send(self._ahead)
        self._sync()  # the point before which nothing else leaves
        self._flush()
        return appended or self.commit > self.applied

    def _handle_inbox(self) -> None:
        inbox, self._inbox = self._inbox, []
        known = {member.name for member in self.membership.connectable()}
        for name, frame in inbox:
            if name in known:
                self._take(name, frame)

    def _take(self, name: str, frame: bytes) -> None:
        try:
            message = decode(frame)
        except CodecError as error:  # its end of the connection is broken, not this server
            log.warning("%s sent %s", name, error)
            self.figures.frames_broken += 1
            self._wire.drop(name, str(error))
            return
        self.others.heard(name)
        self._handle(name, message)

    def _handle(self, name: str, message: messages.Message) -> None:  # noqa: C901, PLR0912
        match message:
            case messages.AppendEntries():
                truncated = self.following_side.on_append(name, message)
                if truncated or any(entry[0][:1] == MEMBERS for entry in message.entries):
                    self._set_members()
            case messages.AppendReply():
                self.leading_side.on_reply(name, message)
            case messages.PreVote():
                self.elections.on_pre_vote(name, message)
                self.bridging.asked(name)
            case messages.PreVoteReply():
                self.elections.on_pre_vote_reply(name, message)
            case messages.RequestVote():
                self.elections.on_request_vote(name, message)
            case messages.VoteReply():
                self.elections.on_vote(name, message)
            case messages.TimeoutNow():
                self.elections.on_timeout_now(name, message)
            case messages.Install():
                self._install(name, message)
            case messages.InstallReply():
                self.leading_side.on_install_reply(name, message)
            case messages.Propose():
                self.proposals.on_propose(name, message)
            case messages.Proposed():
                self.proposals.on_proposed(name, message)
            case messages.ReadRequest():
                self.reads.on_request(name, message)
            case messages.ReadReply():
                self.reads.on_reply(name, message)
            case messages.Note():
                self.others.noted(name, message.data)
            case messages.Ask():
                self.questions.on_ask(name, message)
            case messages.Told():
                self.questions.on_told(name, message)

    def _flush(self) -> None:
        self._send(self._outbox)
        ended, self.proposals.ended = self.proposals.ended, []
        for done, proposal in ended:
            self.figures.ended(proposal.outcome)
            done(proposal)

    def _sync(self) -> None:
        begun = now()
        if self.wal.sync():
            self.figures.synced(now() - begun)

    def _send(self, queue: list[tuple[str, messages.Message]]) -> None:
        if not queue:
            return
        frames: dict[int, bytes] = {}  # several get one and the same message
        for name, message in queue:
            frame = frames.get(id(message))
            if frame is None:
                frame = frames[id(message)] = encode(message)
            self._wire.send(name, frame)
        queue.clear()
        self._wire.flush()

    def _has_news(self) -> bool:
        """Tell whether entries or a commit wait that the followers have not been sent."""
        return self.leading and (self.commit, self.wal.last) != self._told

    def _look_at_role(self) -> None:
        if self._was_leading and not self.leading:
            self.leading_side.stop_leading()
        self._was_leading = self.leading
        if self.leader != self._last_leader:
            self._last_leader = self.leader
            self.figures.leader_changes += 1
        self.succession.tick()

    def _housekeeping(self) -> None:
        time = now()
        if time < self._housekeeping_due:
            return
        self._housekeeping_due = time + _HOUSEKEEPING_S
        self.proposals.expire()
        if self.membership.forget_learner(leading=self.leading):
            self._set_members()
        self.others.tell(time)
        if time >= self._hint_due:
            self._hint_due = time + _HINT_S
            self.wal.flush_commit()

    # What the library asks for.
    def reachable_leader(self) -> str | None:
        """See Library."""
        leader = self.leader
        asks = leader is not None and self._wire.connected(leader) and not self.elections.refused
        return leader if asks else None

    def refused_by(self, name: str) -> None:
        """See Library: it is not asked again before it was heard again as the leader."""
        self.elections.refused |= name == self.leader

    def transferring(self) -> bool:
        """See Library."""
        return self.elections.transfer

    def may_campaign(self) -> bool:
        """See Library."""
        return self.elections.may_campaign()

    def send_entries(self) -> None:
        """See Library; one server gets at most a window ahead of what it takes."""
        self.heartbeat_sent()
        self._told = (self.commit, self.wal.last)
        if self.leading:
            self.leading_side.hungry.clear()
            self._send_to({node.id for node in self.leading_side.targets()}, least=-math.inf)

    def _feed(self) -> None:
        """Send on, between heartbeats, to those that have taken what they were sent."""
        hungry, self.leading_side.hungry = self.leading_side.hungry, set()
        if self.leading and hungry:
            self._send_to(hungry, least=1)

    def _send_to(self, names: set[str], least: float) -> None:
        """Send to those that have room for ``least`` bytes; 0 or less: a heartbeat at any rate."""
        for node in self.leading_side.targets():
            if node.id in names and self._wire.connected(node.id):
                room = self.settings.window_bytes - self._wire.backlog(node.id)
                if room >= least:
                    self.leading_side.send(node, room)

    def apply_committed(self) -> None:
        """See Library; a bounded number in one tick."""
        start = self.applied + 1
        stop = min(self.commit + 1, start + self.settings.apply_batch)
        for entry in self.wal.slice(start, stop) if start < stop else ():
            result = self._apply(entry)
            self.applied = entry[1]
            self.proposals.applied(entry[1], entry[2], result)
            if entry[0][:1] == MEMBERS:
                self._set_members()

    def _apply(self, entry: Entry) -> object:
        """Apply one entry; P10: an exception must not wedge one server and not the others."""
        if entry[0][:1] != REGULAR:
            return None
        try:
            return self._machine.apply(entry[1], entry[0][1:])
        except (MemoryError, CannotApplyError):
            raise  # would not happen alike everywhere: this server ends
        except Exception as error:
            log.exception("applying entry %d failed; this is a bug", entry[1])
            return ApplyFailed(type(error).__name__)

    def compact(self) -> None:
        """See Library: take a snapshot when enough was applied, cut the log when it is written."""
        if self.snapshots.poll():
            self.figures.snapshots_written += 1
            self._cut()
        meta, settings = self.snapshots.meta, self.settings
        fresh = self.applied - (meta.index if meta is not None else 1)
        if self.snapshots.saving or fresh <= 0:
            return
        grown = self.wal.size > settings.snapshot_bytes and fresh > settings.retain_entries
        if fresh >= settings.snapshot_entries or grown:
            self.take_snapshot()

    def take_snapshot(self) -> None:
        """Begin to write a snapshot of what is applied."""
        index = self.applied
        term = self.wal.term_at(index)
        if term is None:
            raise AssertionError(f"entry {index} is applied and not held")
        members = self.membership.at(self.wal.entries, index)
        self.snapshots.save(SnapshotMeta(index, term, members), self._machine.snapshot())

    def _cut(self) -> None:
        meta = self.snapshots.meta
        if meta is None:
            return
        self.membership.replace_base(meta.members, meta.index)
        cut = max(meta.index - self.settings.retain_entries, self._retained_from(meta.index))
        installing = self.leading_side.installs_from()
        if installing is not None and self.wal.size <= _HELD * self.settings.snapshot_bytes:
            cut = min(cut, installing)  # larger: whoever is so slow begins anew with a newer one
        if cut > self.wal.first:
            self.wal.compact(cut)

    def _retained_from(self, index: int) -> int:
        """Keep no more than half the size that starts a snapshot behind it."""
        budget = self.settings.snapshot_bytes // 2
        for entry in reversed(self.wal.slice(self.wal.first, index + 1)):
            budget -= len(entry[0])
            if budget < 0:
                return entry[1]
        return self.wal.first

    def _install(self, name: str, message: messages.Install) -> None:
        if not self.following_side.on_install(name, message, self.snapshots):
            return
        meta = self.snapshots.install()
        if meta.index <= self.applied:
            raise AssertionError(f"snapshot {meta.index} is older than {self.applied}")
        self._join(self.wal, meta)
        self.applied = meta.index
        self.raise_commit(meta.index)
        self._machine.restore(self.snapshots.pieces())
        self.membership.replace_base(meta.members, meta.index)
        self._set_members()
        self.proposals.skipped(meta.index)
        self.figures.snapshots_installed += 1
        self.following_side.reply_install(name, message, message.total, done=True)
        self._restored()

    # Servers.
    def _set_members(self) -> None:
        self.membership.refresh(self.wal.entries)
        self.membership.committed = self.membership.at(self.wal.entries, self.commit)
        self.set_voters(self.membership.others())
        self.elections.member = any(m.name == self.name for m in self.membership.members)
        self._set_learner()
        self.others.forget_stores()
        self._wire.set_members(self.membership.connectable())

    def _set_learner(self) -> None:
        learner = self.membership.learner
        if learner is not None and learner.name not in self.voters():
            self.add_target(learner.name)

    def _translate(self, command: bytes) -> bytes:
        """Return what to append for a command: itself, except for a change of servers."""
        if command[:1] == HAND_OVER:
            chosen = self.hand_over(command[1:].decode(errors="replace") or None)
            msg = f"leadership is handed to {chosen}"
            raise RefusedError(msg)
        if command[:1] != CHANGE:
            return command
        learner = self.membership.learner
        try:
            return self.membership.translate(self, command, self.leading_side.answering())
        finally:
            if self.membership.learner != learner:
                self._set_members()

    def _on_appended(self, entry: Entry) -> None:
        if entry[0][:1] == MEMBERS:
            self._set_members()

    def hand_over(self, target: str | None) -> str:
        """As leader, have ``target`` or whoever fits lead; see Succession.begin."""
        return self.succession.begin(target)

    # Figures.
    def figures_now(self) -> dict[str, int]:
        """Return the counts, and where the log stands; ``lag.NAME``: entries that NAME lacks."""
        wal, meta = self.wal, self.snapshots.meta
        figures = {
            "term": self.term,
            "leading": int(self.leading),
            "first": wal.first,
            "last": wal.last,
            "commit": self.commit,
            "applied": self.applied,
            "wal_bytes": wal.size,
            "snapshot": 0 if meta is None else meta.index,
            "connected": sum(self._wire.connected(name) for name in self.membership.others()),
        }
        lags = self.leading_side.lags() if self.leading else {}
        return figures | self.figures.named() | {f"lag.{name}": lag for name, lag in lags.items()}

    def close(self) -> None:
        """Sync, end all proposals and close the files."""
        self.proposals.end_all("this server stops")
        self.reads.end_all()
        self.leading_side.stop_leading()
        self.snapshots.drop_incoming()
        self.wal.flush_commit()
        self.wal.sync()
        self.wal.close()
        self._outbox.clear()
        self._ahead.clear()
        self._flush()

    def abandon(self) -> None:
        """End all proposals as unknown and touch the disk no more: it failed."""
        self.proposals.end_all("the log failed")
        self.reads.end_all()
        self.wal.close()
        self._outbox.clear()
        ended, self.proposals.ended = self.proposals.ended, []
        for done, proposal in ended:
            done(Proposal(Outcome.UNKNOWN, reason=proposal.reason or "the log failed"))
