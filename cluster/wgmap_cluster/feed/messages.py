"""What replica and responder say to each other, over a named SOCK_SEQPACKET socket.

One message a packet, msgpack, ``[kind, fields...]``, at most MAX_PACKET bytes: longer runs of
rows travel in several. All messages of one direction keep their order: a lease or an answer that
comes after a batch of changes was true with these changes applied.
"""

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from wgmap_cluster.fsm.rows import Change

MAX_PACKET = 128 * 1024
SOCKET_NAME = "feed.sock"  # in the state directory
Source: TypeAlias = tuple[str, int]  # address as text, UDP port


@dataclass(frozen=True, slots=True)
class Attach:
    """Responder to replica, first: the last index that its table has (0: empty)."""

    index: int


@dataclass(frozen=True, slots=True)
class TableBegin:
    """Replica: a whole copy of the tables follows; the present one goes on until TableEnd."""

    index: int


@dataclass(frozen=True, slots=True)
class Rows:
    """Replica: rows of the copy."""

    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class TableEnd:
    """Replica: the copy is complete as of this index."""

    index: int


@dataclass(frozen=True, slots=True)
class Changes:
    """Replica: the changes of the commands up to ``index``; ``more``: the index goes on."""

    index: int
    changes: tuple[Change, ...]
    more: bool = False


@dataclass(frozen=True, slots=True)
class Lease:
    """Replica: answers are authoritative until ``until`` (CLOCK_BOOTTIME seconds)."""

    until: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Replica: send these bytes from port 4342 to that agent."""

    destination: Source
    datagram: bytes


class Contact(NamedTuple):
    """That an agent was told of a peer, when, and whether it is known to have heard it."""

    agent: str
    subject: str
    at: float  # CLOCK_BOOTTIME seconds
    state: str  # heard | waiting | unheard


@dataclass(frozen=True, slots=True)
class WhoKnows:
    """Replica: who was told of whom? Of ``peer`` and ``other`` alone where they are given."""

    number: int
    peer: str
    other: str
    most: int


@dataclass(frozen=True, slots=True)
class Known:
    """Responder: the answer, the newest first."""

    number: int
    contacts: tuple[Contact, ...]


@dataclass(frozen=True, slots=True)
class Forward:
    """Responder: a datagram that is the replica's (a Map-Register)."""

    source: Source
    datagram: bytes


@dataclass(frozen=True, slots=True)
class Barrier:
    """Responder: have a read barrier for the refreshes that carry this number."""

    number: int


@dataclass(frozen=True, slots=True)
class BarrierDone:
    """Replica: all that was committed before Barrier came is in the stream above; or not."""

    number: int
    ok: bool


@dataclass(frozen=True, slots=True)
class ResponderNote:
    """Responder: counters for the replica's status and metrics, every second or so."""

    counters: dict[str, int]


ToResponder: TypeAlias = (
    TableBegin | Rows | TableEnd | Changes | Lease | Answer | BarrierDone | WhoKnows
)
ToReplica: TypeAlias = Attach | Forward | Barrier | ResponderNote | Known
FeedMessage: TypeAlias = ToResponder | ToReplica
