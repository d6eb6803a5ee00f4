"""New keys of peers that rotate, judged by readings of the device: they take over, or go."""

from collections.abc import Container

from wgmap.wg.device import DeviceState, PeerConfig, PeerState
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.data_plane import DataPlane
from wgmap_agent.engine.intake import Intake
from wgmap_agent.engine.peers import Peer, Role
from wgmap_agent.engine.rotation import LEAST_DATA_BYTES
from wgmap_agent.engine.successors import Successor
from wgmap_agent.engine.types import Action, ConfigurePeers, Tunnel

# At once, with the next look, and then not before so long: until the owner gives up waiting for it.
SHOW_MOST, SHOW_S = 7, 1.5


class Succession:
    """Works on the successors of a data plane."""

    def __init__(self, plane: DataPlane, intake: Intake) -> None:
        self._plane = plane
        self._intake = intake

    def read(
        self, now: float, state: DeviceState, among: Container[PublicKey] | None = None
    ) -> list[Action]:
        """Judge every successor (``among`` these) by a reading of the data device."""
        successors = self._plane.successors
        actions: list[Action] = []
        for one in successors.all():
            key = one.offer.key
            if among is not None and key not in among:
                continue
            seen = state.peers.get(key)
            if seen is not None and seen.last_handshake is not None:
                actions += self._stands(now, key, seen)
            elif successors.is_over(now, one):
                actions += self._failed(now, key)
            elif changes := successors.again(now, one, seen):
                actions.append(ConfigurePeers(Tunnel.DATA, changes))
        return actions

    def show(self, now: float, peer: Peer, state: PeerState) -> list[Action]:
        """Let a peer see that its new key took over, until it shows that it did.

        What we show may be lost, and nobody else may have anything to send.
        """
        if state.rx_bytes - peer.unseen_rx >= LEAST_DATA_BYTES:
            peer.unseen = 0
        if not peer.unseen or (peer.unseen < SHOW_MOST - 1 and now - peer.shown_at < SHOW_S):
            return []
        peer.unseen -= 1
        peer.shown_at = now
        return self._plane.probe(peer)

    def _stands(self, now: float, key: PublicKey, seen: PeerState) -> list[Action]:
        """Give a peer's prefixes to its new key, in one request with the end of the old one."""
        plane = self._plane
        successor = plane.successors.takes_over(now, key)
        actions = [] if successor is None else self._take_over(now, successor)
        peer = plane.data.peers.get(key)
        if peer is None:  # a newer mapping says otherwise
            return [_removal(key)]
        plane.counters.add("peer.succeeded")
        peer.keepalive = True
        peer.unseen, peer.unseen_rx = SHOW_MOST, seen.rx_bytes
        return actions + self.show(now, peer, seen)

    def _take_over(self, now: float, successor: Successor) -> list[Action]:
        plane = self._plane
        installed = plane.data.take_in(now, successor.offer, Role.PULLER)
        if installed is None:
            return []
        plane.stamp(installed)
        confirmed = all(one.authoritative for one in successor.offer.prefixes)
        plane.trust(now, installed, successor.records, confirmed=confirmed)
        plane.begin(now, installed.peer)
        return installed.actions() + plane.displaced(now, installed)

    def _failed(self, now: float, key: PublicKey) -> list[Action]:
        """Take the new key as that of a peer whose old one is dead."""
        plane = self._plane
        successor = plane.successors.drop(key)
        if successor is None:
            return []
        plane.counters.add("peer.successor_failed")
        return [_removal(key), *self._intake.pushed(now, successor.offer, successor.records)]


def _removal(key: PublicKey) -> ConfigurePeers:
    return ConfigurePeers(Tunnel.DATA, (PeerConfig(key, remove=True),))
