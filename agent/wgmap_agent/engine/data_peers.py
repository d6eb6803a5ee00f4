"""The data peers and what they own: turns changes of the table into peer changes and routes.

AllowedIPs are always set whole, from the table. There is no route without a peer and no peer
without a prefix.
"""

from dataclasses import dataclass, field

from wgmap.addresses import IPNetwork
from wgmap.wg.device import PeerConfig
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.counters import Counters
from wgmap_agent.engine.mappings import PeerOffer, Reading, Withdrawn, is_inside
from wgmap_agent.engine.peers import Peer, Phase, Role, WayBack
from wgmap_agent.engine.settings import Settings
from wgmap_agent.engine.table import Claim, Table, Verdict
from wgmap_agent.engine.types import Action, AddRoutes, ConfigurePeers, DeleteRoutes, Tunnel


@dataclass(slots=True)
class Installed:
    """What taking in an offer changed, not yet in an order."""

    peer: Peer
    created: bool = False
    newer: bool = False  # some prefix came with a greater version than before
    endpoint_changed: bool = False
    configs: list[PeerConfig] = field(default_factory=list)
    routes: list[IPNetwork] = field(default_factory=list)
    displaced: list[PublicKey] = field(default_factory=list)  # lost their last prefix
    moved: list[IPNetwork] = field(default_factory=list)  # were another peer's

    def actions(self) -> list[Action]:
        """Order them: first the peer, for packets that follow a route to none are lost.

        On the pushed side an initiation may be on the way, which is lost as well where its peer
        is not there; what answers it needs the route only after a whole handshake. Where packets
        wait the peer has no routes before it stands: until then they must come to us.
        """
        peer = [ConfigurePeers(Tunnel.DATA, tuple(self.configs))] if self.configs else []
        if not self.peer.routed:
            return [DeleteRoutes(tuple(self.moved)), *peer] if self.moved else [*peer]
        route = [AddRoutes(tuple(self.routes))] if self.routes else []
        return [*peer, *route]


class DataPeers:
    """All data peers, and the one table of what is whose."""

    def __init__(self, settings: Settings, counters: Counters) -> None:
        self._counters = counters
        self.table = Table(settings)
        self.peers: dict[PublicKey, Peer] = {}
        # What timers look at, so that thousands of settled peers cost nothing.
        self.unsettled: dict[PublicKey, Peer] = {}  # no handshake yet, or in recovery
        self.renew_from = float("inf")  # no mapping is to be renewed before this
        self._disputed: IPNetwork | None = None  # of the last message
        self._overruled: list[IPNetwork] = []  # by the last refresh

    def take_in(
        self, now: float, offer: PeerOffer, role: Role, *, wins: bool = False
    ) -> Installed | None:
        """Take in what a message says of one peer; None where nothing of it is accepted.

        ``role`` counts for a new peer only; ``wins``: the answer to one's own refresh.
        """
        before = {one.prefix: self.table.get(one.prefix) for one in offer.prefixes}
        self._disputed = self._dispute(offer)
        taken = [claim for claim in self._claims(now, offer) if self._offer(claim, wins=wins)]
        if not taken:
            return None
        installed = Installed(self._peer(now, offer, role))
        installed.created = offer.key not in self.peers
        self.peers[offer.key] = installed.peer
        self._note_changes(installed, taken, before)
        self._note_inside(taken, before, wins=wins)
        self._renew(installed, offer)
        return installed

    def take_disputed(self) -> IPNetwork | None:
        """Return a prefix that the last message gave to another key than we do, once.

        Versions are of a mapping, and a part of one that was narrowed has the prefix of another
        peer's mapping, or lies in it, or has that of one that was withdrawn: where a message and
        our table differ about a prefix only a refresh can tell.
        """
        disputed, self._disputed = self._disputed, None
        return disputed

    def take_overruled(self) -> tuple[IPNetwork, ...]:
        """Return the prefixes that the last refresh gave to other keys than we do, once."""
        overruled, self._overruled = tuple(self._overruled), []
        return overruled

    def remove(self, key: PublicKey) -> list[Action]:
        """Remove a peer, its prefixes and its routes."""
        self.peers.pop(key, None)
        prefixes = self.table.drop_key(key)
        actions: list[Action] = [DeleteRoutes(prefixes)] if prefixes else []
        return [*actions, ConfigurePeers(Tunnel.DATA, (PeerConfig(key, remove=True),))]

    def withdraw(self, prefix: IPNetwork, version: int) -> tuple[PublicKey | None, list[Action]]:
        """Drop one prefix; returns the key of the peer that left with it, and the actions."""
        claim = self.table.withdraw(prefix, version)
        if claim is None:
            return None, []
        self._counters.add("mapping.withdrawn")
        return self._without(claim)

    def drop(self, prefix: IPNetwork) -> tuple[PublicKey | None, list[Action]]:
        """As ``withdraw``, but nothing says that the prefix may not come back as it was."""
        claim = self.table.get(prefix)
        if claim is None:
            return None, []
        self.table.drop(prefix)
        return self._without(claim)

    def _without(self, claim: Claim) -> tuple[PublicKey | None, list[Action]]:
        rest = self.table.prefixes(claim.key)
        if not rest:
            self.peers.pop(claim.key, None)
            change = PeerConfig(claim.key, remove=True)
        else:
            change = PeerConfig(claim.key, allowed_ips=rest, update_only=True)
        actions: list[Action] = [
            DeleteRoutes((claim.prefix,)),
            ConfigurePeers(Tunnel.DATA, (change,)),
        ]
        return (None if rest else claim.key), actions

    def unconfirmed(self) -> int:
        """Count the peers that only an answer without authority tells of."""
        return sum(peer.unconfirmed_since is not None for peer in self.peers.values())

    def told_by(self, servers: int) -> int:
        """Count the peers of whose changes this many servers tell."""
        return sum(len(peer.told_by) == servers for peer in self.peers.values())

    def parts(self, gone: Withdrawn, message: Reading) -> tuple[IPNetwork, ...]:
        """Return the parts of a mapping that is withdrawn: it was narrowed when it came.

        What is newer than the withdrawal stays, and what the same message says is there: that is
        all that the peer has.
        """
        if gone.key is None:
            return ()
        offer = message.peers.get(gone.key)
        there = {one.prefix for one in offer.prefixes} if offer is not None else set()
        return tuple(
            prefix
            for prefix in self.table.prefixes(gone.key)
            if prefix not in there
            and is_inside(prefix, gone.prefix)
            and self.table.is_from(prefix, gone.version)
        )

    def unsettle(self, peer: Peer) -> None:
        """Have timers look at a peer until it stands and is not in recovery."""
        self.unsettled[peer.key] = peer

    def renew(self, peer: Peer, at: float) -> None:
        """Set when the mapping of a peer is asked for again."""
        peer.renew_at = at
        self.renew_from = min(self.renew_from, at)

    def _dispute(self, offer: PeerOffer) -> IPNetwork | None:
        return next(
            (
                one.prefix
                for one in offer.prefixes
                if one.authoritative and self.table.disputes(one.prefix, offer.key, one.version)
            ),
            None,
        )

    def _claims(self, now: float, offer: PeerOffer) -> list[Claim]:
        return [
            Claim(one.prefix, offer.key, one.version, now + one.ttl_s) for one in offer.prefixes
        ]

    def _offer(self, claim: Claim, *, wins: bool) -> bool:
        verdict = self.table.offer(claim, wins=wins)
        if verdict in (Verdict.STALE, Verdict.FULL):
            self._counters.add(f"mapping.refused_{verdict.name.lower()}")
            return False
        return True

    def _peer(self, now: float, offer: PeerOffer, role: Role) -> Peer:
        known = self.peers.get(offer.key)
        if known is not None:
            return known
        passive = role in (Role.PUSHED, Role.BOTH_SECOND)
        phase = Phase.PASSIVE if passive else Phase.TRYING
        peer = Peer(offer.key, offer.endpoint, role, phase, now, None, now)
        peer.activity.reset(now)
        self.unsettle(peer)
        return peer

    def _note_changes(
        self,
        installed: Installed,
        taken: list[Claim],
        before: dict[IPNetwork, Claim | None],
    ) -> None:
        losers: dict[PublicKey, None] = {}
        for claim in taken:
            old = before[claim.prefix]
            if old is None or old.key != claim.key:
                installed.routes.append(claim.prefix)
            if old is not None and old.version != claim.version:
                installed.newer = True
            if old is not None and old.key != claim.key:
                installed.moved.append(claim.prefix)
                losers[old.key] = None
        for key in losers:
            self._lose(installed, key)

    def _note_inside(
        self, taken: list[Claim], before: dict[IPNetwork, Claim | None], *, wins: bool
    ) -> None:
        """Note what lies inside the new prefixes: servers send none that holds a foreign one."""
        for claim in taken:
            old = before[claim.prefix]
            known = old is not None and (old.key, old.version) == (claim.key, claim.version)
            foreign = () if known and not wins else self._foreign_inside(claim)
            if wins:
                self._overruled += foreign
            elif foreign and self._disputed is None:
                self._disputed = foreign[0]

    def _foreign_inside(self, claim: Claim) -> tuple[IPNetwork, ...]:
        return self.table.foreign_inside(claim.prefix, claim.key)

    def _lose(self, installed: Installed, key: PublicKey) -> None:
        rest = self.table.prefixes(key)
        if rest:
            installed.configs.append(PeerConfig(key, allowed_ips=rest, update_only=True))
            return
        self.peers.pop(key, None)
        installed.displaced.append(key)
        installed.configs.append(PeerConfig(key, remove=True))

    def _renew(self, installed: Installed, offer: PeerOffer) -> None:
        peer = installed.peer
        prefixes = self.table.prefixes(peer.key)
        self._take_ways(installed, offer)
        claims = map(self.table.get, prefixes)
        self.renew(peer, min(claim.expires for claim in claims if claim is not None))
        if installed.created:
            installed.configs.append(PeerConfig(peer.key, peer.endpoint, prefixes))
        elif installed.routes or installed.endpoint_changed:
            endpoint = peer.endpoint if installed.endpoint_changed else None
            allowed = prefixes if installed.routes else None
            installed.configs.append(PeerConfig(peer.key, endpoint, allowed))

    def _take_ways(self, installed: Installed, offer: PeerOffer) -> None:
        """Take the first way of an offer, unless it says nothing new: then the one in use stays."""
        peer = installed.peer
        before, peer.ways = peer.ways, offer.ways or (offer.endpoint,)
        in_use = peer.endpoint in peer.ways and before in ((), peer.ways)
        if in_use and not installed.created:
            return
        installed.endpoint_changed = not installed.created and peer.endpoint != peer.ways[0]
        peer.endpoint = peer.ways[0]
        peer.way_back = WayBack()
