"""The ways to a peer with several endpoints: on when one is silent, back when it returns.

Nothing but WireGuard's own packets can show that a way works, and a device sends over one. So the
way back is tried, seldom and shortly: the peer answers from where it was reached, and the device
takes as endpoint whence the last packet came. What comes from elsewhere means that the first way is
dead, and has put the other one back already.
"""

from wgmap.wg.device import PeerConfig
from wgmap_agent.engine.data_plane import DataPlane
from wgmap_agent.engine.peers import Peer, WayBack
from wgmap_agent.engine.types import Action, ConfigurePeers, Tunnel

CHANGE_AFTER_TRIES = 2  # questions for a silent peer: it may have moved, or we may have


class Ways:
    """Chooses between the endpoints of the peers of a data plane."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane

    def trial_s(self) -> float:
        """Return how long (seconds) a try of the first way may take."""
        return self._plane.settings.way_trial_s + 2 * self._plane.servers.rtt()

    def silent(self, peer: Peer) -> list[Action]:
        """Go on to the next way of a peer that does not answer; empty: there is none yet."""
        tries = 0 if peer.recovery is None else peer.recovery.tries
        if tries < CHANGE_AFTER_TRIES or not self._plane.next_way(peer):
            return []
        return [self._set(peer)]

    def watch(self, now: float, peer: Peer) -> list[Action]:
        """Look after the way back of a peer that is heard."""
        back = peer.way_back
        if len(peer.ways) < 2 or peer.endpoint == peer.ways[0]:
            return []
        if back.since is not None:
            return self._judge(now, peer)
        if back.at is None:
            back.wait = back.wait or self._plane.settings.way_back_s
            back.at = now + back.wait
        return self._try(now, peer) if now >= back.at else []

    def _try(self, now: float, peer: Peer) -> list[Action]:
        plane = self._plane
        plane.counters.add("peer.way_back_tried")
        rx = 0 if peer.state is None else peer.state.rx_bytes
        peer.way_back = WayBack(wait=peer.way_back.wait, since=now, rx=rx)
        plane.data.unsettle(peer)
        plane.touched(peer)
        change = PeerConfig(peer.key, peer.ways[0], update_only=True)
        return [ConfigurePeers(Tunnel.DATA, (change,)), *plane.probe(peer)]

    def _judge(self, now: float, peer: Peer) -> list[Action]:
        back, state, settings = peer.way_back, peer.state, self._plane.settings
        since = now if back.since is None else back.since
        came = state is not None and state.rx_bytes > back.rx
        if not came and now - since < self.trial_s():
            return []
        if came and state is not None and state.endpoint == peer.ways[0]:
            self._plane.counters.add("peer.way_back")
            peer.endpoint, peer.way_back = peer.ways[0], WayBack()
            return []
        peer.way_back = WayBack(wait=min(2 * back.wait, settings.way_back_cap_s))
        return [self._set(peer)]

    def _set(self, peer: Peer) -> Action:
        self._plane.touched(peer)
        change = PeerConfig(peer.key, peer.endpoint, update_only=True)
        return ConfigurePeers(Tunnel.DATA, (change,))
