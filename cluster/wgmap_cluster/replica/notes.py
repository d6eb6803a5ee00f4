"""The small note that every server publishes about itself (``ReplicatedLog.publish``)."""

from dataclasses import dataclass
from typing import Self

import msgpack

from wgmap import __version__
from wgmap_cluster.fsm.commands import VERSION
from wgmap_cluster.raft.interface import LogStatus, Role

ANSWERS = 1  # questions about contacts
FORMAT = 1  # fields may be added at the end without a new one


@dataclass(frozen=True, slots=True)
class ServerNote:
    """What other servers cannot know: sent unreliably, so it may be half a second old."""

    applied: int  # index of the last command that this server applied
    fresh: bool  # whether it answers with authority (the lease holds)
    reachable_agents: int | None  # control peers with a recent handshake; None: not known
    candidate: bool = False  # whether it is trying to become the leader
    served: int | None = None  # all its responders answer with what this index has; None: none does
    reads: int = 1  # the newest version of commands that it reads
    answers: int = 0  # the newest version of questions beside the log that it answers
    release: str | None = None  # which one its process runs; None: one that does not say

    @classmethod
    def of(
        cls,
        log: LogStatus,
        *,
        fresh: bool,
        reachable_agents: int | None,
        served: int | None = None,
    ) -> Self:
        """Make the note of a server from its own view of the log."""
        candidate = log.role is Role.CANDIDATE
        versions = (VERSION, ANSWERS, __version__)
        return cls(log.applied, fresh, reachable_agents, candidate, served, *versions)

    def encode(self) -> bytes:
        """Write the note: msgpack ``[format, fields...]``."""
        fields = (self.applied, self.fresh, self.reachable_agents, self.candidate)
        more = (self.served, self.reads, self.answers, self.release)
        data: bytes = msgpack.packb([FORMAT, *fields, *more])
        return data

    @classmethod
    def decode(cls, data: bytes) -> Self | None:
        """Read a note; None for none (b"") and for what is not understood.

        A note only informs: one of a newer version must not break an older server.
        """
        try:
            values = msgpack.unpackb(data)
        except (ValueError, TypeError, msgpack.UnpackException):
            return None
        match values:
            case [1, int(applied), bool(fresh), (int() | None) as reachable, bool(candidate), *_]:
                served = values[5] if len(values) > 5 and isinstance(values[5], int) else None
                reads = values[6] if len(values) > 6 and isinstance(values[6], int) else 1
                answers = values[7] if len(values) > 7 and isinstance(values[7], int) else 0
                release = values[8] if len(values) > 8 and isinstance(values[8], str) else None
                return cls(applied, fresh, reachable, candidate, served, reads, answers, release)
            case _:
                return None
