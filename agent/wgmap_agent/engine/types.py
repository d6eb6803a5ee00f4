"""What goes into the engine and what comes out.

The engine is handed ``now`` (seconds, never going back) and an event, and returns actions. The
runner executes the actions of one call in their order and the calls first in, first out; what
fails comes back as ``Engine.failed``.
"""

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv6Address, IPv6Network
from typing import TypeAlias

from wgmap.addresses import Endpoint, IPAddress, IPNetwork
from wgmap.lisp.messages import Record
from wgmap.wg.device import PeerConfig
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.locators import Rank

CONTROL_PREFIX = IPv6Network("fd77:676d:6170::/64")


class Tunnel(Enum):
    """Which WireGuard interface of the agent."""

    CONTROL = "control"
    DATA = "data"


class Refusal(Enum):
    """What is told to the sender of a packet that cannot be carried (ICMP, ICMPv6)."""

    UNREACHABLE = "unreachable"
    PROHIBITED = "prohibited"
    TOO_BIG = "too big"


class ContactStep(Enum):
    """The steps of a first contact, in their order."""

    CAPTURED = "captured"  # its packet was read from the TUN
    ASKED = "asked"  # the Map-Request is out
    ANSWERED = "answered"  # the Map-Reply was read
    PEER = "peer"  # WireGuard has the peer
    INJECTED = "injected"  # the packet is WireGuard's
    ROUTE = "route"  # the kernel has the route: packets go on without us
    STANDS = "stands"  # the handshake was complete, as the device says


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """A map server as the agent knows it."""

    name: str
    control_key: PublicKey
    endpoint: Endpoint
    control_address: IPv6Address


@dataclass(frozen=True, slots=True)
class Identity:
    """What does not change while the agent runs."""

    name: str
    instance: int
    prefixes: tuple[IPNetwork, ...]
    overlay: tuple[IPNetwork, ...]
    control_address: IPv6Address
    data_key: PublicKey
    data_port: int
    servers: tuple[ServerInfo, ...]  # at the start; the server set says who they are now
    ttl_min: int
    idle_s: float
    control_prefix: IPv6Network = CONTROL_PREFIX
    ranks: tuple[Rank, ...] = ()  # priorities and weights of own locators, as configured
    marked: bool = False  # the tunnels' packets keep out of the overlay: it may cover the underlay


@dataclass(frozen=True, slots=True)
class SavedState:
    """What the runner keeps on disk for the engine between runs."""

    nonce: int = 0  # last nonce of a Map-Register
    revocation: int | None = None  # number of the last revocation that is known
    revoked: tuple[PublicKey, ...] = ()  # keys that are never taken again, oldest first
    servers: tuple[ServerInfo, ...] = ()  # learnt; none where they are those configured


@dataclass(frozen=True, slots=True)
class CachedPeer:
    """What map servers said of a peer whose tunnel stood."""

    key: PublicKey
    records: tuple[Record, ...]
    confirmed: float  # when one in touch with the quorum said so (the engine's ``now``)


# ------------------------------------------------------------------------------------ actions


@dataclass(frozen=True, slots=True)
class Send:
    """Send a datagram to a map server's port 4342 through its control tunnel."""

    server: str
    datagram: bytes


@dataclass(frozen=True, slots=True)
class ConfigurePeers:
    """Apply peer changes as one request to a device."""

    tunnel: Tunnel
    peers: tuple[PeerConfig, ...]


@dataclass(frozen=True, slots=True)
class AddRoutes:
    """Route prefixes to the data interface, with the EID as preferred source."""

    prefixes: tuple[IPNetwork, ...]


@dataclass(frozen=True, slots=True)
class DeleteRoutes:
    """Remove routes that AddRoutes made; absent ones are no error."""

    prefixes: tuple[IPNetwork, ...]


@dataclass(frozen=True, slots=True)
class Inject:
    """Put captured IP packets on their way again, into the data device: no route is needed."""

    packets: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Redeliver:
    """Give this machine an underlay packet again that came too early for the data device.

    Nothing is to be done where the device had all its peers by ``at``: mostly when it came.
    """

    packet: bytes
    at: float


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer a captured packet with ICMP; ``mtu`` only with TOO_BIG."""

    packet: bytes
    refusal: Refusal
    mtu: int = 0


@dataclass(frozen=True, slots=True)
class ReadPeers:
    """Read a device, or of what it tells only these peers; the answer is ``Engine.peers_read``."""

    tunnel: Tunnel
    keys: frozenset[PublicKey] | None = None  # None: all of it


@dataclass(frozen=True, slots=True)
class RefreshEndpoints:
    """Set the device's *current* endpoint of every peer again (the stale source fact)."""

    tunnel: Tunnel


@dataclass(frozen=True, slots=True)
class Save:
    """Write this to the state directory."""

    state: SavedState


@dataclass(frozen=True, slots=True)
class SaveCache:
    """Write the cached peers to the state directory; ``revocation``: none up to it is in there."""

    peers: tuple[CachedPeer, ...]
    revocation: int | None


@dataclass(frozen=True, slots=True)
class Stamp:
    """Note that a step of first contacts is done: at ``at``, or (None) when this is executed.

    It stands behind the actions whose end it marks, so nothing waits for it.
    """

    destinations: tuple[IPAddress, ...]
    step: ContactStep
    at: float | None = None


@dataclass(frozen=True, slots=True)
class UseServers:
    """Know these servers, and no others, as those that datagrams come from and go to."""

    servers: tuple[ServerInfo, ...]


Action: TypeAlias = (
    Send
    | UseServers
    | ConfigurePeers
    | AddRoutes
    | DeleteRoutes
    | Inject
    | Redeliver
    | Refuse
    | ReadPeers
    | RefreshEndpoints
    | Save
    | SaveCache
    | Stamp
)

# ------------------------------------------------------------------------------------- status


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """A server in ``wgmap-agent status``."""

    name: str
    control: str
    rtt_ms: float | None
    last_heard_s: float | None
    preferred: bool


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """A data peer in ``wgmap-agent status``."""

    key: str
    eids: tuple[str, ...]
    endpoint: str | None
    last_handshake_s: float | None
    rx: int | None
    tx: int | None
    state: str  # pending | up | silent | idle


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """The engine's part of ``wgmap-agent status --json``."""

    registered: bool
    servers: tuple[ServerStatus, ...]
    peers: tuple[PeerStatus, ...]
    counters: dict[str, int]
