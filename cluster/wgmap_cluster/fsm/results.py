"""What applying a command gives back, and the changes that go with it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from wgmap_cluster.fsm.rows import Change, MappingRow, PeerRow


class Reason(StrEnum):
    """Why a command was refused."""

    BAD_COMMAND = "bad command"
    NOT_EMPTY = "the cluster exists already"
    NOT_FOUNDED = "the cluster is not bootstrapped yet"
    UNKNOWN_PEER = "no such peer"
    UNKNOWN_SERVER = "no such server"
    REVOKED = "the peer is revoked"
    NAME_TAKEN = "the name is taken"
    KEY_TAKEN = "the control key is taken"
    ADDRESS_TAKEN = "the control address is taken"
    PREFIX_TAKEN = "the prefix is another peer's"
    PREFIX_RESERVED = "the prefix cannot be enrolled"
    NOT_OWNER = "the prefix is not this peer's"
    INVALID = "the values contradict each other"
    LIMIT = "there are too many"
    CHANGED = "it was changed meanwhile"
    RESTORING = "a backup is being restored"


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was changed."""

    reason: Reason
    detail: str = ""
    position: int | None = None  # EnrolMany: which of its peers, from 0

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else str(self.reason)


@dataclass(frozen=True, slots=True)
class Done:
    """It took effect, or had done so before (``changed`` is False)."""

    changed: bool = True
    peer: PeerRow | None = None  # Enrol and SetPeer: the row as it stands
    revocation: int = 0  # Revoke: its number
    left: tuple[str, ...] = ()  # Expire: the peers whose mappings went
    count: int = 0  # Seen, Expire, EnrolMany: how many peers it concerned; restore: pieces in


class Taken(StrEnum):
    """What became of a Register."""

    APPLIED = "applied"
    REPEATED = "repeated"  # the same nonce and content again
    OLDER = "older"  # nothing changed: go on from the stored nonce and mappings


@dataclass(frozen=True, slots=True)
class Registered:
    """A Register was taken note of; ``mappings`` and ``nonce`` are as they stand afterwards."""

    peer: str
    taken: Taken
    nonce: int
    mappings: tuple[tuple[bytes, MappingRow], ...]


Result: TypeAlias = Done | Registered | Refused


@dataclass(frozen=True, slots=True)
class Applied:
    """The result of one command and the rows that it changed, in order."""

    result: Result
    changes: tuple[Change, ...] = ()


class RefusedError(Exception):
    """Raised while deciding; the machine turns it into its Refused."""

    def __init__(self, reason: Reason, detail: str = "", position: int | None = None) -> None:
        self.refused = Refused(reason, detail, position)
        super().__init__(str(self.refused))
