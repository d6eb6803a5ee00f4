"""What people are told of data peers."""

from wgmap_agent.engine.data_peers import DataPeers
from wgmap_agent.engine.peers import Peer, Phase
from wgmap_agent.engine.settings import Settings
from wgmap_agent.engine.types import PeerStatus


def described(now: float, data: DataPeers, settings: Settings) -> tuple[PeerStatus, ...]:
    """Describe every data peer as it is now."""
    return tuple(_status(now, peer, data, settings) for peer in data.peers.values())


def _status(now: float, peer: Peer, data: DataPeers, settings: Settings) -> PeerStatus:
    state = peer.state
    endpoint = peer.endpoint if state is None or state.endpoint is None else state.endpoint
    return PeerStatus(
        key=str(peer.key),
        eids=tuple(str(prefix) for prefix in data.table.prefixes(peer.key)),
        endpoint=None if endpoint is None else str(endpoint),
        last_handshake_s=None if peer.stood_at is None else now - peer.stood_at,
        rx=None if state is None else state.rx_bytes,
        tx=None if state is None else state.tx_bytes,
        state=_state_of(now, peer, settings),
    )


def _state_of(now: float, peer: Peer, settings: Settings) -> str:
    if peer.phase is not Phase.UP:
        return "pending"
    if peer.recovery is not None:
        return "silent"
    return "idle" if now - peer.activity.data_at > settings.standing_s else "up"
