"""A data peer as the engine keeps it, beside what the device says of it."""

import math
from dataclasses import dataclass, field
from enum import Enum, auto

from wgmap.addresses import Endpoint
from wgmap.lisp.messages import Record
from wgmap.wg.device import PeerState
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.idle import Activity
from wgmap_agent.engine.moves import Recovery


class Role(Enum):
    """Who pulled whom: it decides who initiates, and who repairs by a kick."""

    PULLER = auto()  # we asked: we initiate at once and we kick
    PUSHED = auto()  # it asked: it initiates, we only after the fallback delay
    BOTH_FIRST = auto()  # both asked, our key is the lower: as the puller
    BOTH_SECOND = auto()  # both asked, our key is the higher: we hold our packets
    ADOPTED = auto()  # found on the device at start


class Phase(Enum):
    """Where the handshake of a peer stands, as far as we know."""

    PASSIVE = auto()  # the other side is to initiate
    TRYING = auto()  # we have initiated
    UP = auto()  # a handshake was complete


@dataclass(slots=True)
class Trial:
    """A try of the endpoint that is to be taken first, while another one is in use."""

    since: float
    sets: int = 0  # how often it was set
    seen: tuple[bool, int] | None = None  # since then: was it the endpoint, and what had come
    works: bool = False  # something came from there
    held_since: float | None = None  # from when on each reading has shown it


@dataclass(slots=True)
class WayBack:
    """From another of a peer's endpoints to the one that is to be taken first: when it is tried."""

    at: float | None = None  # when next
    wait: float = 0.0  # after the last time it was of no use
    trial: Trial | None = None


@dataclass(slots=True)
class Peer:
    """One peer on the data device."""

    key: PublicKey
    endpoint: Endpoint | None  # as last advertised and set; WireGuard may have roamed since
    role: Role
    phase: Phase
    since: float  # when it was installed, or last lost its handshake
    check_at: float | None  # when its handshake is judged; None: it stands
    renew_at: float  # when its mapping is asked for again
    fallback_at: float = 0.0  # when the passive side initiates after all
    tried_at: float = 0.0  # when we initiated last
    kick_at: float = 0.0  # when an initiation that brought nothing at all counts as lost
    kicks: int = 0
    routed: bool = False  # what is sent to it goes there without us, and no kick gives it back
    held_back: bool = False  # it may not know us yet, or is to initiate: we must not
    rx_mark: int = 0  # what had come from it when we initiated
    answered: bool = False  # a response came to our initiation, or its own initiation came
    again_at: float = -math.inf  # when the device was given an initiation of its again
    ours: bool = False  # the former: it has not shown yet that it has the session
    unseen: int = 0  # so often we may still show its owner that this new key took over,
    shown_at: float = 0.0  # as we did last,
    unseen_rx: int = 0  # until more than this came from it
    anew_at: float | None = None  # when it initiated after that: it may have lost the session
    graced: bool = False  # something came from it: it got more time
    keepalive: bool = False  # set by us to start a handshake: cleared once it stands
    changed_in: int = 0  # the reading of the device that came after its last change
    state: PeerState | None = None  # as last read
    stood_at: float | None = None  # its last handshake, on the engine's clock
    activity: Activity = field(default_factory=Activity)
    recovery: Recovery | None = None
    ways: tuple[Endpoint, ...] = ()  # as last advertised, the one to take first
    way_back: WayBack = field(default_factory=WayBack)
    records: tuple[Record, ...] = ()  # as last confirmed by a server in touch with the quorum,
    confirmed_at: float | None = None  # and when
    unconfirmed_since: float | None = None  # made of an answer without authority; from when that is
    told_by: frozenset[str] = frozenset()  # the servers that push its changes to us
    second_planned: bool = False  # and another one is to be asked
