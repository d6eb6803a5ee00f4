"""Decides about the tunnels between servers; no I/O.

Two initiations that cross destroy each other and cost 5 s, so of two servers the one with the
lower key initiates and the other knows no endpoint at first: Raft's packets to a peer without an
endpoint go nowhere, and start no handshake. Only when the lower one has not come within a
fallback delay (it may be restarting, or believe in a session that died with us) does the higher
one initiate as well.

A handshake that does not stand after a few round trips is kicked by the lower key: removing and
adding the peer sends another initiation at once, where WireGuard waits 5 s. After 180 s of
silence, when no session can be left, either side makes the peer anew, so that a server whose
wall clock went back is not refused for the timestamps of its former handshakes.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from wgmap.addresses import Endpoint, IPAddress, host_prefix
from wgmap.wg.device import DeviceState, PeerConfig, PeerState
from wgmap.wg.keys import PublicKey
from wgmap_cluster.fsm.rows import ServerRow

KEEPALIVE_S = 10  # so that both sides hear of each other whether or not Raft has a word to say
FALLBACK_S = 1.0
FIRST_KICK_S = 1.0  # then doubling
MAX_KICK_S = 30.0
SILENT_S = 180.0  # REJECT_AFTER_TIME
PENDING_TICK_S = 0.1
TICK_S = 2.0


@dataclass(frozen=True, slots=True)
class MeshPeer:
    """Another server, as the table has it."""

    name: str
    key: PublicKey
    endpoint: Endpoint
    address: IPAddress


def mesh_peers(servers: Mapping[str, ServerRow], own: PublicKey) -> dict[PublicKey, MeshPeer]:
    """Read the table of servers, our own row left out."""
    peers = (
        MeshPeer(
            name,
            PublicKey(row.mesh_key),
            Endpoint(ipaddress.ip_address(row.underlay), row.mesh_port),
            ipaddress.ip_address(row.mesh_address),
        )
        for name, row in servers.items()
    )
    return {peer.key: peer for peer in peers if peer.key != own}


@dataclass(slots=True)
class _Tunnel:
    """What was done for a peer and what was seen of it."""

    peer: MeshPeer
    since: float  # when it was added, or kicked last
    kicks: int = 0
    initiating: bool = False  # it has our endpoint
    settled: bool = False  # it has its endpoint and keepalive for good
    rx_bytes: int = 0
    last_handshake: float = 0.0
    heard: float | None = None  # when one of these two was last seen to change

    def take(self, now: float, state: PeerState) -> None:
        handshake = state.last_handshake or 0.0
        if state.rx_bytes > self.rx_bytes or handshake > self.last_handshake:
            self.heard = now
        self.rx_bytes, self.last_handshake = state.rx_bytes, handshake

    def started(self, now: float) -> None:
        """Take note that the peer is new on the device: its counters begin anew."""
        self.since, self.rx_bytes, self.last_handshake = now, 0, 0.0
        self.settled = False


class MeshPlan:
    """The peers of one server's mesh device. Call ``step`` with each reading of it."""

    def __init__(self, own: PublicKey) -> None:
        self._own = own
        self._wanted: dict[PublicKey, MeshPeer] = {}
        self._tunnels: dict[PublicKey, _Tunnel] = {}

    def update(self, servers: Mapping[str, ServerRow]) -> None:
        """Take the whole table of servers."""
        self._wanted = mesh_peers(servers, self._own)

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        """The mesh addresses of the others: each wants a route."""
        return tuple(peer.address for peer in self._wanted.values())

    def up(self, name: str) -> bool | None:
        """Tell whether the tunnel to a server stands; None: there is no such server."""
        for tunnel in self._tunnels.values():
            if tunnel.peer.name == name:
                return tunnel.last_handshake > 0
        return None

    def next_step(self, now: float) -> float:
        """Return when to look again: soon while a tunnel does not stand yet."""
        pending = any(not tunnel.settled for tunnel in self._tunnels.values())
        return now + (PENDING_TICK_S if pending else TICK_S)

    def step(self, now: float, state: DeviceState) -> tuple[PeerConfig, ...]:
        """Return the changes that the device needs now."""
        changes = [PeerConfig(key, remove=True) for key in state.peers if key not in self._wanted]
        self._tunnels = {
            key: tunnel for key, tunnel in self._tunnels.items() if key in self._wanted
        }
        for key, peer in self._wanted.items():
            changes += self._step_one(now, peer, state.peers.get(key))
        return tuple(changes)

    def _step_one(self, now: float, peer: MeshPeer, state: PeerState | None) -> list[PeerConfig]:
        tunnel = self._tunnels.get(peer.key)
        if state is None:
            return self._add(now, peer)
        if tunnel is None:
            tunnel = self._adopt(now, peer, state)
        tunnel.take(now, state)
        return [
            *_correct(tunnel, peer, state),
            *self._progress(now, tunnel, state),
        ]

    def _add(self, now: float, peer: MeshPeer) -> list[PeerConfig]:
        tunnel = self._tunnels[peer.key] = _Tunnel(peer, now, initiating=self._own < peer.key)
        return [_new(tunnel)]

    def _adopt(self, now: float, peer: MeshPeer, state: PeerState) -> _Tunnel:
        """Take over a peer that an earlier process of this server had added."""
        tunnel = self._tunnels[peer.key] = _Tunnel(peer, now, initiating=state.endpoint is not None)
        return tunnel

    def _progress(self, now: float, tunnel: _Tunnel, state: PeerState) -> list[PeerConfig]:
        if state.last_handshake is not None:
            return self._standing(now, tunnel, state)
        if not tunnel.initiating:
            return _fall_back(tunnel) if now - tunnel.since >= FALLBACK_S else []
        if self._own < tunnel.peer.key and now - tunnel.since >= _patience(tunnel.kicks):
            tunnel.kicks += 1
            return _anew(now, tunnel, tunnel.peer.endpoint)
        return []

    def _standing(self, now: float, tunnel: _Tunnel, state: PeerState) -> list[PeerConfig]:
        tunnel.kicks, tunnel.initiating = 0, True
        if now - (tunnel.heard or tunnel.since) >= SILENT_S:
            tunnel.heard = None
            return _anew(now, tunnel, state.endpoint or tunnel.peer.endpoint)
        if tunnel.settled:
            return []
        tunnel.settled = True
        if state.keepalive_s == KEEPALIVE_S:
            return []
        return [PeerConfig(state.key, keepalive_s=KEEPALIVE_S, update_only=True)]


def restated(state: DeviceState) -> tuple[PeerConfig, ...]:
    """Return changes that set each peer's endpoint again as it is.

    For after a change of our own addresses or routes: WireGuard goes on sending from the source
    that it has remembered (for about 15 s), unless its endpoint is set.
    """
    return tuple(
        PeerConfig(peer.key, peer.endpoint, update_only=True)
        for peer in state.peers.values()
        if peer.endpoint is not None
    )


def _patience(kicks: int) -> float:
    return min(FIRST_KICK_S * 2.0 ** min(kicks, 10), MAX_KICK_S)


def _new(tunnel: _Tunnel, endpoint: Endpoint | None = None) -> PeerConfig:
    peer = tunnel.peer
    if not tunnel.initiating:
        return PeerConfig(peer.key, allowed_ips=(host_prefix(peer.address),))
    return PeerConfig(
        peer.key, endpoint or peer.endpoint, (host_prefix(peer.address),), KEEPALIVE_S
    )


def _anew(now: float, tunnel: _Tunnel, endpoint: Endpoint) -> list[PeerConfig]:
    tunnel.started(now)
    return [PeerConfig(tunnel.peer.key, remove=True), _new(tunnel, endpoint)]


def _fall_back(tunnel: _Tunnel) -> list[PeerConfig]:
    tunnel.initiating = True
    return [_new(tunnel)]


def _correct(tunnel: _Tunnel, peer: MeshPeer, state: PeerState) -> list[PeerConfig]:
    """Apply what changed in the table; the endpoint otherwise belongs to the data plane."""
    moved = peer.endpoint != tunnel.peer.endpoint
    tunnel.peer = peer
    allowed = (host_prefix(peer.address),)
    if not moved and state.allowed_ips == allowed:
        return []
    endpoint = peer.endpoint if moved and tunnel.initiating else None
    return [PeerConfig(peer.key, endpoint, allowed, update_only=True)]
