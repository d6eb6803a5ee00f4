"""What the rest of the map server knows of the replicated log.

Nothing outside this room imports the library behind it.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

MAX_COMMAND_BYTES = 32 * 1024


class Outcome(Enum):
    """How a proposal ended."""

    APPLIED = "applied"
    NOT_APPLIED = "not applied"  # certain: it never will be
    UNKNOWN = "unknown"  # it may have been, or may yet be applied


class LogError(Exception):
    """The log cannot go on: a full or failing disk, a corrupt file. The process must end."""


class CannotApplyError(LogError):
    """The state machine of this version must not pass a command by: the server needs an upgrade."""


class RefusedError(Exception):
    """The servers cannot be changed so now; the text says why."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """The outcome of one command; ``index`` and ``result`` only with APPLIED."""

    outcome: Outcome
    index: int = 0
    result: object = None  # what StateMachine.apply returned on this server
    reason: str = ""  # why not, for people


class Role(Enum):
    """The role of a server in Raft."""

    LEADER = "leader"
    FOLLOWER = "follower"
    CANDIDATE = "candidate"


@dataclass(frozen=True, slots=True)
class Member:
    """A server of the log; ``address`` is the mesh address and Raft port ``[ADDRESS]:PORT``.

    ``store`` is the disk with which it was added, as the log has it; b"" for those of the first
    set. It tells nothing apart: operators do not know it.
    """

    name: str
    address: str
    store: bytes = field(default=b"", compare=False)

    def fields(self) -> list[str | bytes]:
        """Return it as entries and snapshots have it; the disk only where it is known."""
        return [self.name, self.address, *([self.store] if self.store else [])]


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """What this server knows of another one."""

    name: str
    connected: bool
    note: bytes  # what that server published last (see ReplicatedLog.publish), b"" if nothing
    heard_s: float | None  # seconds since anything was heard from it; None: never


@dataclass(frozen=True, slots=True)
class LogStatus:
    """A glance at the log, cheap enough to take ten times a second."""

    role: Role
    leader: str | None
    term: int
    commit: int
    applied: int
    last: int
    others: dict[str, MemberStatus] = field(default_factory=dict)


class StateMachine(Protocol):
    """What the log drives. Deterministic: no clock, no randomness, no configuration."""

    def apply(self, index: int, command: bytes) -> object:
        """Apply one committed command; must be total: bad commands return an error value.

        Except for CannotApplyError: this server then applies nothing more, and ends.
        """
        ...

    def snapshot(self) -> Iterable[bytes]:
        """Return the state as pieces of at most 64 KiB.

        The call itself copies what must be copied (shallow, O(n), on the caller's loop); the
        pieces are drawn later, in a thread, while apply goes on.
        """
        ...

    def restore(self, pieces: Iterator[bytes]) -> None:
        """Replace the whole state by what snapshot wrote."""
        ...


class ClusterControl(Protocol):
    """What operators do to the set of servers; the log's object implements both protocols."""

    def members(self) -> tuple[Member, ...]:
        """Return the servers, as this one's log has them; raises LogError when not running."""
        ...

    async def add_member(self, member: Member, deadline_s: float = 30.0) -> Proposal:
        """Add a server, which must run with an empty state; waits until it has caught up."""
        ...

    async def remove_member(self, name: str, deadline_s: float = 5.0) -> Proposal:
        """Remove a server other than the leader (have it hand over first)."""
        ...

    async def hand_over(self, target: str | None = None, deadline_s: float = 5.0) -> str:
        """Have ``target``, or whoever fits, lead; on any server. Returns who leads then.

        With a target that leads already nothing happens. Raises RefusedError where leadership
        has not changed hands in time.
        """
        ...


class ReplicatedLog(Protocol):
    """The log as seen by the replica. All methods belong to the asyncio loop that started it."""

    async def start(self) -> None:
        """Read the state directory, restore, join; raises LogError."""
        ...

    async def stop(self) -> None:
        """Sync and leave; idempotent."""
        ...

    async def propose(self, command: bytes, deadline_s: float = 1.5) -> Proposal:
        """Have a command committed and applied here; on a follower it is sent to the leader.

        Ends within ``deadline_s``. An APPLIED command is on disk on a quorum and applied on
        this server. Over MAX_COMMAND_BYTES: ValueError.
        """
        ...

    async def read_barrier(self, deadline_s: float = 1.0) -> int | None:
        """Wait until this server has applied all that was committed before the call.

        Returns the index read at, or None where no quorum confirmed it in time.
        """
        ...

    def status(self) -> LogStatus:
        """Return a glance at the log."""
        ...

    def figures(self) -> dict[str, int]:
        """Return numbers for people and metrics by name; empty while the log does not run.

        The present state (``term``, ``leading``, ``first``, ``last``, ``commit``, ``applied``,
        ``wal_bytes``, ``snapshot``, ``connected``, on the leader ``lag.NAME``) and what was
        counted since the start (``syncs``, ``elections_won`` and so on: raft/figures.py).
        """
        ...

    def publish(self, note: bytes) -> None:
        """Set the small note (at most 1 KiB) that other servers see in their status().

        Sent unreliably along with the log's own messages, at least every half second.
        """
        ...

    async def ask(self, name: str, question: bytes, deadline_s: float = 1.0) -> bytes | None:
        """Ask another server something beside the log; None without an answer in time.

        Only a server that is known to read such questions (its note says so) may be asked. At most
        64 KiB, the answer too.
        """
        ...

    def on_asked(self, answer: Callable[[bytes], Awaitable[bytes]]) -> None:
        """Have others' questions answered by that; a few at a time, the rest get no answer."""
        ...

    def on_restored(self, callback: Callable[[], None]) -> None:
        """Call back after the state was replaced by a snapshot from another server."""
        ...


class ClusterLog(ReplicatedLog, ClusterControl, Protocol):
    """Both: what the replica gets."""
