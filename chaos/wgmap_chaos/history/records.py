"""The kinds of lines in a history. All times are seconds of ``wgmap.clock.now`` of one machine."""

from enum import StrEnum
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field


class Outcome(StrEnum):
    """What the caller knows of a call."""

    OK = "ok"  # it was answered
    FAIL = "fail"  # it certainly has no effect
    UNKNOWN = "unknown"  # no answer: it may have taken effect, or still may


class Op(StrEnum):
    """What was called for."""

    REGISTER = "register"  # value: its number; result: the number in force afterwards
    LOOKUP = "lookup"  # result: the number shown, 0 for no mapping
    REFRESH = "refresh"  # the same, linearizable
    PUSHED = "pushed"  # who was told, unasked, that result is in force
    ENROL = "enrol"  # key: the peer's name
    REVOKE = "revoke"
    BACKUP = "backup"
    ROTATE = "rotate"  # an agent's data key; key: the agent's name


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Run(_Record):
    """What was run; the first line."""

    kind: Literal["run"] = "run"
    command: str  # that does the same again
    commit: str
    seed: int
    servers: int
    agents: int
    lights: int
    probes: bool = False  # whether there were clients for the gaps alone: their names begin with p
    minutes: float
    load: float = 0.0  # processes that wanted a processor when it began
    begun: float
    staleness_s: float
    converge_s: float  # promised from the last heal on
    push_s: float  # promised to whoever asked, from the acknowledgement on
    data_grace_s: float  # what follows a fault of the data plane is still its effect
    rotation_gap_s: float = 0.5  # so long an agent's flow may be silent while its key rotates
    grown_mb: float  # more memory than that is a leak
    grown_fds: int


class Call(_Record):
    """One call of a client or an operator."""

    kind: Literal["call"] = "call"
    who: str
    op: Op
    key: str  # an EID, or a name
    outcome: Outcome
    begun: float
    ended: float | None = None  # None: nobody waited to the end
    server: str | None = None  # who answered, or was asked last
    value: int | None = None
    result: int | None = None
    authoritative: bool | None = None
    error: str = ""


class Late(_Record):
    """Something that a client began later than it meant to: its fault, and nobody else's."""

    kind: Literal["late"] = "late"
    who: str
    at: float
    by_s: float


class Fault(_Record):
    """A fault, from the first attempt to the proof that it is over."""

    kind: Literal["fault"] = "fault"
    name: str
    targets: tuple[str, ...]  # hosts
    roles: tuple[str, ...] = ()  # processes of these hosts that it ends
    data: bool = False  # whether it disturbs tunnels between agents
    begun: float
    effective: float  # when it had been seen to have an effect
    healing: float
    healed: float


class Flow(_Record):
    """A data flow over an established tunnel, packet by packet."""

    kind: Literal["flow"] = "flow"
    name: str
    source: str
    target: str
    begun: float
    ended: float
    interval_s: float
    sent: int
    lost: tuple[float, ...] = ()  # when those were sent that never came back
    gaps: tuple[tuple[float, float], ...] = ()  # (since, until) without an echo, the longer ones


class Contact(_Record):
    """A first contact of two agents."""

    kind: Literal["contact"] = "contact"
    source: str
    target: str
    begun: float
    took_s: float | None  # until the first reply; None: none came


class Sample(_Record):
    """A process as it is."""

    kind: Literal["sample"] = "sample"
    at: float
    host: str
    role: str
    pid: int
    rss_mb: float
    fds: int


class Vanished(_Record):
    """A process that was there is there no more, or is another one."""

    kind: Literal["vanished"] = "vanished"
    host: str
    role: str
    pid: int
    seen: float  # the last time
    missed: float  # the first time that it was not there


class Said(_Record):
    """The begin of a traceback in a daemon's log."""

    kind: Literal["said"] = "said"
    host: str
    text: str


class Final(_Record):
    """What a server held at the end."""

    kind: Literal["final"] = "final"
    server: str
    index: int
    digest: str
    peers: dict[str, bool]  # name -> revoked
    numbers: dict[str, int]  # EID -> number of the register that its responder shows


class Settled(_Record):
    """How long after the last heal something was as it should be."""

    kind: Literal["settled"] = "settled"
    what: str
    took_s: float | None  # None: not within the time that was waited
    detail: str = ""


Record: TypeAlias = Annotated[
    Run | Call | Late | Fault | Flow | Contact | Sample | Vanished | Said | Final | Settled,
    Field(discriminator="kind"),
]
