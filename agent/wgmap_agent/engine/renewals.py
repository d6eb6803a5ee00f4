"""Mappings past their TTL are asked for again; without an answer they stay (flow 8).

A server pushes changes to those who asked it, and forgets them when it dies. So each peer in use is
asked for at two servers: a change is pushed at once also where one of them dies just before it.
The second question waits until its answer cannot be older than the first one's (a server may be
behind by the staleness bound) and until the tunnel stands: no first packet waits for it.
"""

from collections import deque

from wgmap.addresses import IPNetwork
from wgmap.lisp.messages import Record
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.data_plane import DataPlane
from wgmap_agent.engine.peers import Peer, Phase
from wgmap_agent.engine.requests import Answer
from wgmap_agent.engine.types import Action

PER_TURN = 16  # questions in one go: a fleet of peers of one age is asked for in pieces
TURN_S = 0.1
SECOND_S = 0.25  # beside the staleness bound: when the second server is asked


class Renewals:
    """Asks for one prefix of each peer that is due: the answer carries all of them."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane
        self._not_before = float("-inf")
        self._seconds: deque[tuple[float, Peer]] = deque()  # when a second server is asked

    def due(self, now: float) -> list[Action]:
        """Ask for the peers that are due."""
        data = self._plane.data
        if now < max(self._not_before, min(data.renew_from, self._second_at())):
            return []
        due = [peer for peer in data.peers.values() if peer.renew_at <= now]
        actions: list[Action] = []
        for peer in due[:PER_TURN]:
            peer.renew_at = now + self._plane.settings.revalidate_retry_s
            actions += self._plane.requests.ask(now, self._oldest(peer.key))
            self._plane.counters.add("mapping.revalidated")
        data.renew_from = min((p.renew_at for p in data.peers.values()), default=float("inf"))
        self._not_before = now + TURN_S
        return actions + self._ask_seconds(now, PER_TURN - len(due))

    def answered(self, now: float, answer: Answer) -> None:
        """Note who pushes from now on, and go on where other prefixes are past their TTL."""
        claim = self._plane.data.table.owner(answer.target.network_address)
        if claim is None:
            return
        peer = self._plane.data.peers[claim.key]
        if not answer.records:
            peer.renew_at = max(peer.renew_at, now + self._plane.settings.revalidate_retry_s)
        elif answer.server is not None:
            self._told(now, peer, answer.server, second=answer.second)

    def pushed(self, server: str, records: tuple[Record, ...]) -> None:
        """Note that a server pushes the changes of these: it told of them unasked."""
        for record in records:
            claim = self._plane.data.table.get(record.eid.prefix)
            if claim is not None:
                self._plane.data.peers[claim.key].told_by |= {server}

    def all_soon(self, now: float) -> None:
        """Ask for every peer soon: no server was there, and pushes may have been missed."""
        self._soon(now, list(self._plane.data.peers.values()))

    def unconfirmed_now(self, now: float) -> None:
        """Ask for those that nobody vouches for: a server is back."""
        for peer in self._plane.data.peers.values():
            if peer.unconfirmed_since is not None:
                self._plane.data.renew(peer, now)

    def lost(self, now: float, servers: frozenset[str]) -> None:
        """Ask soon for what servers that were silent, or are new, would push changes of.

        Later, where another one that is there pushes them as well.
        """
        told = [peer for peer in self._plane.data.peers.values() if peer.told_by & servers]
        for peer in told:
            peer.told_by -= servers
        silent = self._plane.servers.is_silent
        alone = [peer for peer in told if all(silent(now, name) for name in peer.told_by)]
        self._soon(now, alone)
        others = [peer for peer in told if peer not in alone]
        self._soon(now, others, self._plane.settings.revalidate_second_s)

    def _soon(self, now: float, peers: list[Peer], spread_s: float | None = None) -> None:
        """Spread the questions, the longer the more there are: others do the same just now."""
        settings = self._plane.settings
        spread = settings.revalidate_spread_s if spread_s is None else spread_s
        spread = max(spread, len(peers) / settings.revalidate_per_s)
        for peer in peers:
            soon = now + spread * self._plane.rng.random()
            self._plane.data.renew(peer, min(peer.renew_at, soon))

    def deadline(self) -> float | None:
        """Return when ``due`` has something to do."""
        first = min(self._plane.data.renew_from, self._second_at())
        return None if first == float("inf") else max(first, self._not_before)

    # ----------------------------------------------------------------------- the second server

    def _told(self, now: float, peer: Peer, server: str, *, second: bool) -> None:
        former = peer.told_by if second else frozenset()
        peer.told_by = former | {server}
        if len(peer.told_by) == 1:
            self._plan_second(now, peer)

    def _plan_second(self, now: float, peer: Peer) -> None:
        if not peer.second_planned:  # so there are no more of them than peers were in use lately
            peer.second_planned = True
            self._seconds.append((now + self._plane.settings.staleness_s + SECOND_S, peer))

    def _second_at(self) -> float:
        return self._seconds[0][0] if self._seconds else float("inf")

    def _ask_seconds(self, now: float, most: int) -> list[Action]:
        actions: list[Action] = []
        while self._second_at() <= now and most > 0:
            _, peer = self._seconds.popleft()
            peer.second_planned = False
            if self._plane.data.peers.get(peer.key) is not peer:
                continue  # it left; if it came back since, it has a plan of its own
            if peer.phase is not Phase.UP:
                self._plan_second(now, peer)
                continue
            most -= 1
            actions += self._ask_second(now, peer)
        return actions

    def _ask_second(self, now: float, peer: Peer) -> list[Action]:
        servers = self._plane.servers
        live = [name for name in servers.names(now) if not servers.is_doubtful(now, name)]
        others = [name for name in live if name not in peer.told_by]
        if not others or len(peer.told_by.intersection(live)) > 1:
            return []
        self._plane.counters.add("mapping.second_server")
        return self._plane.requests.ask(now, self._oldest(peer.key), second=others[0])

    def _oldest(self, key: PublicKey) -> IPNetwork:
        table = self._plane.data.table
        claims = [claim for claim in map(table.get, table.prefixes(key)) if claim is not None]
        return min(claims, key=lambda claim: claim.expires).prefix
