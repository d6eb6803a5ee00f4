"""Mappings past their TTL are asked for again; without an answer they stay (flow 8)."""

from wgmap.addresses import IPNetwork
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.data_plane import DataPlane
from wgmap_agent.engine.requests import Answer
from wgmap_agent.engine.types import Action

PER_TURN = 16  # questions in one go: a fleet of peers of one age is asked for in pieces
TURN_S = 0.1


class Renewals:
    """Asks for one prefix of each peer that is due: the answer carries all of them."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane
        self._not_before = float("-inf")

    def due(self, now: float) -> list[Action]:
        """Ask for the peers that are due."""
        data = self._plane.data
        if now < max(self._not_before, data.renew_from):
            return []
        due = [peer for peer in data.peers.values() if peer.renew_at <= now]
        actions: list[Action] = []
        for peer in due[:PER_TURN]:
            peer.renew_at = now + self._plane.settings.revalidate_retry_s
            actions += self._plane.requests.ask(now, self._oldest(peer.key))
            self._plane.counters.add("mapping.revalidated")
        data.renew_from = min((p.renew_at for p in data.peers.values()), default=float("inf"))
        self._not_before = now + TURN_S
        return actions

    def answered(self, now: float, answer: Answer) -> None:
        """Go on with a peer whose other prefixes are past their TTL as well."""
        claim = self._plane.data.table.owner(answer.target.network_address)
        if claim is not None and not answer.records:
            peer = self._plane.data.peers[claim.key]
            peer.renew_at = max(peer.renew_at, now + self._plane.settings.revalidate_retry_s)

    def all_soon(self, now: float) -> None:
        """Ask for every peer soon: a server is back, and pushes may have been missed."""
        spread = self._plane.settings.revalidate_spread_s
        for peer in self._plane.data.peers.values():
            # One that nobody vouches for is asked about first.
            sure = peer.unconfirmed_since is None
            soon = now + spread * self._plane.rng.random() if sure else now
            self._plane.data.renew(peer, min(peer.renew_at, soon))

    def lost(self, now: float, servers: frozenset[str]) -> None:
        """Ask another server soon for what one that is silent now would have pushed changes of."""
        spread = self._plane.settings.revalidate_spread_s
        for peer in self._plane.data.peers.values():
            if peer.told_by in servers:
                soon = now + spread * self._plane.rng.random()
                self._plane.data.renew(peer, min(peer.renew_at, soon))

    def deadline(self) -> float | None:
        """Return when ``due`` has something to do."""
        first = self._plane.data.renew_from
        return None if first == float("inf") else max(first, self._not_before)

    def _oldest(self, key: PublicKey) -> IPNetwork:
        table = self._plane.data.table
        claims = [claim for claim in map(table.get, table.prefixes(key)) if claim is not None]
        return min(claims, key=lambda claim: claim.expires).prefix
