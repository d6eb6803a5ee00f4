"""A replicated log of one process: it applies what is proposed, and fails where it is told to."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from wgmap_cluster.raft.interface import (
    MAX_COMMAND_BYTES,
    LogStatus,
    MemberStatus,
    Outcome,
    Proposal,
    Role,
    StateMachine,
)
from wgmap_cluster.replica.notes import ServerNote


@dataclass
class MemoryLog:
    """Implements ``raft.interface.ReplicatedLog``.

    ``fate`` decides how proposals end. With UNKNOWN the command is applied all the same when
    ``applies_unknown`` is set: both may happen in truth.
    """

    machine: StateMachine
    name: str = "ms1"
    fate: Outcome = Outcome.APPLIED
    applies_unknown: bool = False
    role: Role = Role.LEADER
    leader: str | None = "ms1"
    term: int = 3
    index: int = 0
    note: bytes = b""
    others: dict[str, MemberStatus] = field(default_factory=dict)
    followers: set[str] = field(default_factory=set)  # others that apply what is applied here

    async def start(self) -> None:
        """Nothing is read from anywhere."""

    async def stop(self) -> None:
        """Nothing is kept."""

    async def propose(self, command: bytes, deadline_s: float = 1.5) -> Proposal:
        """Apply a command, or fail as told."""
        assert deadline_s > 0
        if len(command) > MAX_COMMAND_BYTES:
            msg = f"{len(command)} bytes are too many"
            raise ValueError(msg)
        await asyncio.sleep(0)
        if self.fate is Outcome.NOT_APPLIED:
            return Proposal(self.fate, reason="no leader")
        if self.fate is Outcome.UNKNOWN and not self.applies_unknown:
            return Proposal(self.fate, reason="no answer")
        self.index += 1
        result = self.machine.apply(self.index, command)
        for name in self.followers:
            self.hear(name, self.index)
        if self.fate is Outcome.UNKNOWN:
            return Proposal(self.fate, reason="no answer")
        return Proposal(Outcome.APPLIED, self.index, result)

    async def read_barrier(self, deadline_s: float = 1.0) -> int | None:
        """Confirm while proposals are applied."""
        assert deadline_s > 0
        await asyncio.sleep(0)
        return self.index if self.fate is Outcome.APPLIED else None

    def status(self) -> LogStatus:
        """Return what was set."""
        return LogStatus(
            self.role, self.leader, self.term, self.index, self.index, self.index, self.others
        )

    def publish(self, note: bytes) -> None:
        """Keep the note."""
        assert len(note) <= 1024
        self.note = note

    def on_restored(self, callback: Callable[[], None]) -> None:
        """No snapshot ever comes from another server."""

    def hear(self, name: str, applied: int, *, fresh: bool = True, agents: int = 0) -> None:
        """Have another server's note arrive."""
        note = ServerNote(applied, fresh, agents).encode()
        self.others[name] = MemberStatus(name, connected=True, note=note, heard_s=0.0)

    def lose(self, name: str) -> None:
        """Cut another server off; its last note stays."""
        self.others[name] = replace(self.others[name], connected=False, heard_s=9.0)
        self.followers.discard(name)
