"""What servers say to each other; each message is one frame on a connection.

Replies carry the term and the round of what they answer (P6: an acknowledgement without a term
let an old one commit). Indices and terms count from 1.
"""

from typing import NamedTuple, TypeAlias

from wgmap_cluster.raft.wal import Entry


class AppendEntries(NamedTuple):
    """Entries after ``prev_index``; a heartbeat where there are none (Raft, figure 2)."""

    term: int
    round: int
    prev_index: int
    prev_term: int
    commit: int
    entries: tuple[Entry, ...]


class AppendReply(NamedTuple):
    """``success``: the log matches the leader's up to ``at``; else: resume at ``at``."""

    term: int
    round: int
    success: bool
    at: int


class PreVote(NamedTuple):
    """Would you vote for me in ``term``? Changes nothing (Raft thesis, 9.6)."""

    term: int
    last_index: int
    last_term: int


class PreVoteReply(NamedTuple):
    """A yes to the question about ``asked``; or a no that tells a higher ``term``."""

    term: int
    asked: int
    granted: bool


class RequestVote(NamedTuple):
    """Vote for me; ``transfer``: the leader wants it so."""

    term: int
    last_index: int
    last_term: int
    transfer: bool


class VoteReply(NamedTuple):
    """A vote for the receiver in ``term``."""

    term: int


class TimeoutNow(NamedTuple):
    """Take over: stand for election at once (Raft thesis, 3.10)."""

    term: int


class Install(NamedTuple):
    """A piece of the snapshot file whose last entry is (last_index, last_term)."""

    term: int
    round: int
    last_index: int
    last_term: int
    offset: int
    total: int
    data: bytes


class InstallReply(NamedTuple):
    """The receiver has the file up to ``offset``; ``done``: it is restored, or not needed."""

    term: int
    round: int
    last_index: int
    offset: int
    done: bool


class Propose(NamedTuple):
    """Commands for the leader of ``term``, each with an id unique to the sender's incarnation.

    A server that does not lead in just this term refuses, for good: it never will again.
    """

    term: int
    items: tuple[tuple[int, bytes], ...]


class Proposed(NamedTuple):
    """Where the leader put them in ``term``: (request id, index).

    Index 0: refused; ``reason`` says why, or is empty where the receiver does not lead.
    """

    term: int
    items: tuple[tuple[int, int], ...]
    reason: str


class ReadRequest(NamedTuple):
    """Asks the leader for a read index."""

    id: int


class ReadReply(NamedTuple):
    """The read index for request ``id``, 0 where the leader cannot confirm that it leads."""

    id: int
    at: int


class Note(NamedTuple):
    """What the sender published."""

    data: bytes


class Ask(NamedTuple):
    """A question beside the log (ReplicatedLog.ask); a server that is too old breaks off."""

    id: int
    data: bytes


class Told(NamedTuple):
    """The answer to question ``id``."""

    id: int
    data: bytes


Message: TypeAlias = (
    AppendEntries | AppendReply | PreVote | PreVoteReply | RequestVote | VoteReply | TimeoutNow
    | Install | InstallReply | Propose | Proposed | ReadRequest | ReadReply | Note
    | Ask | Told
)  # fmt: skip
