"""The data side: what is known of it, and what is done to a peer and its tunnel."""

import random
from dataclasses import replace

from wgmap.addresses import IPAddress, IPNetwork
from wgmap.lisp.messages import Record
from wgmap.wg.device import PeerConfig
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine import packets
from wgmap_agent.engine.arrivals import Arrivals
from wgmap_agent.engine.contact import FirstContact
from wgmap_agent.engine.counters import Counters
from wgmap_agent.engine.data_peers import DataPeers, Installed
from wgmap_agent.engine.flows import Event
from wgmap_agent.engine.handshakes import Handshakes, kick
from wgmap_agent.engine.mappings import Reader
from wgmap_agent.engine.moves import Moves
from wgmap_agent.engine.negative import Negative
from wgmap_agent.engine.peers import Peer, Phase, Role
from wgmap_agent.engine.readings import Readings
from wgmap_agent.engine.requests import Requests
from wgmap_agent.engine.servers import Servers
from wgmap_agent.engine.settings import Settings
from wgmap_agent.engine.successors import Successors
from wgmap_agent.engine.types import (
    Action,
    AddRoutes,
    CachedPeer,
    ConfigurePeers,
    ContactStep,
    Identity,
    Inject,
    Stamp,
    Tunnel,
)


class DataPlane:
    """Installs and removes data peers: ``intake`` says which, ``watch`` judges them."""

    def __init__(
        self,
        identity: Identity,
        settings: Settings,
        rng: random.Random,
        counters: Counters,
        servers: Servers,
        requests: Requests,
    ) -> None:
        self.identity = identity
        self.settings = settings
        self.counters = counters
        self.servers = servers
        self.requests = requests
        self.cache = requests.cache
        self.readings = Readings(settings)
        self.data = DataPeers(settings, counters)
        self.successors = Successors(settings, self.data)
        self.contact = FirstContact(settings, counters)
        self.handshakes = Handshakes(identity.data_key, settings, rng)
        self.arrivals = Arrivals()
        self.moves = Moves(settings, rng)
        self.negative = Negative(settings)
        self.reader = Reader(identity, counters, servers.revocations)
        self.rng = rng
        self.families: frozenset[int] = frozenset()  # IP versions of our own underlay
        self._probes = 0

    def use_key(self, key: PublicKey) -> None:
        """Have this data key from now on: what is compared with the keys of others."""
        self.identity = replace(self.identity, data_key=key)
        self.handshakes.use_key(key)
        self.reader.use_key(key)

    def begin(self, now: float, peer: Peer) -> None:
        """Set when the handshake of a peer that was just installed is judged first."""
        peer.answered, peer.ours, peer.anew_at = False, False, None
        self.arrivals.expect(peer.endpoint, peer.key)
        waiting = peer.phase is Phase.PASSIVE and peer.role is Role.BOTH_SECOND
        self.handshakes.begin(now, self.servers.rtt(), peer, waiting=waiting)

    def stamp(self, installed: Installed) -> None:
        """Note that readings under way do not show what was just installed."""
        if installed.configs:
            self.touched(installed.peer)

    def touched(self, peer: Peer) -> None:
        """Note that readings under way do not show a peer as it is now."""
        peer.changed_in = self.readings.number(Tunnel.DATA)

    def trust(
        self, now: float, installed: Installed, records: tuple[Record, ...], *, confirmed: bool
    ) -> None:
        """Note how sure a mapping is; what was confirmed is remembered once the tunnel stands."""
        peer = installed.peer
        if not confirmed:
            if installed.created:
                known = self.cache.confirmed(peer.key)
                peer.unconfirmed_since = now if known is None else known
            if peer.unconfirmed_since is not None:
                self.data.renew(peer, now + self.settings.revalidate_retry_s)
            return
        peer.unconfirmed_since, peer.confirmed_at = None, now
        peer.records = tuple(
            record for record in records if any(one.key == peer.key for one in record.locators)
        )
        if peer.phase is Phase.UP:
            self.remember(now, peer)

    def remember(self, now: float, peer: Peer) -> None:
        """Cache a peer whose tunnel stands."""
        if peer.confirmed_at is not None and peer.records:
            self.cache.note(now, CachedPeer(peer.key, peer.records, peer.confirmed_at))

    def displaced(self, now: float, installed: Installed) -> list[Action]:
        """Move the flows of peers that lost their last prefix to its new owner."""
        actions: list[Action] = []
        event = Event.HELD_BACK if installed.peer.held_back else Event.KICKED
        for key in installed.displaced:
            self.counters.add("peer.displaced")
            for flow in self.contact.of(key):
                self.contact.assign(flow, installed.peer.key)
                actions += self.contact.on(now, flow, event)
        return actions

    def role(self, key: PublicKey, *, both: bool) -> Role:
        """Say what part we have with a peer that asked for us; ``both``: we ask for it as well."""
        if not both:
            return Role.PUSHED
        self.counters.add("push.both_pull")
        return Role.BOTH_FIRST if self.identity.data_key < key else Role.BOTH_SECOND

    def both_pull(self, now: float, peer: Peer) -> None:
        """Take our part where one that has asked for us is to get packets of ours."""
        peer.role = self.role(peer.key, both=True)
        if peer.phase is Phase.TRYING:
            self.handshakes.role_changed(self.servers.rtt(), peer)
        elif peer.role is Role.BOTH_FIRST:
            peer.phase = Phase.TRYING
            self.begin(now, peer)
        else:
            soon = now + self.handshakes.poll(self.servers.rtt())
            peer.check_at = min(peer.fallback_at, soon)

    def remove(self, now: float, key: PublicKey) -> list[Action]:
        """Remove a peer with its routes; what is held for it is refused."""
        peer = self.data.peers.get(key)
        if peer is not None:
            self.arrivals.forget(peer.endpoint)
        return self.data.remove(key) + self.contact.all_of(now, key, Event.PEER_GONE)

    def portions(self, now: float) -> list[Action]:
        """Go on with what is held for peers whose handshake is answered."""
        actions, keys = self.contact.portions(now)
        peers = (peer for key in keys if (peer := self.data.peers.get(key)) is not None)
        return actions + [action for peer in peers for action in self.let_pass(peer)]

    def let_pass(self, peer: Peer, waited: tuple[IPAddress, ...] = ()) -> list[Action]:
        """Make the routes of a peer once its packets need not come to us any more.

        That is when its handshake is answered, for a kick would drop what we do not hold, and
        what is held has left, so that nothing overtakes it. ``waited``: whose flows are over.
        """
        ready = (peer.answered or peer.phase is Phase.UP) and self.contact.is_out(peer.key)
        if peer.routed or not ready:
            return []
        peer.routed = True
        waiting = waited or tuple(flow.destination for flow in self.contact.of(peer.key))
        stamps = [Stamp(waiting, ContactStep.ROUTE)] if waiting else []
        return [AddRoutes(self.data.table.prefixes(peer.key)), *stamps]

    def start(self, now: float, peer: Peer) -> list[Action]:
        """Initiate with a peer that is installed: by a keepalive, and by what is held for it."""
        if peer.held_back and peer.role is not Role.BOTH_SECOND:
            peer.role = Role.PULLER
        elif peer.role is Role.PUSHED and self.contact.of(peer.key):
            peer.role = Role.BOTH_SECOND
        peer.phase, peer.keepalive, peer.held_back = Phase.TRYING, True, False
        peer.rx_mark = peer.state.rx_bytes if peer.state is not None else 0
        self.touched(peer)
        self.begin(now, peer)
        change = PeerConfig(peer.key, keepalive_s=self.settings.keepalive_s, update_only=True)
        configure = ConfigurePeers(Tunnel.DATA, (change,))
        return [configure, *self.contact.all_of(now, peer.key, Event.RELEASED)]

    def kick(self, now: float, peer: Peer, *, ask: bool) -> list[Action]:
        """Remove and add a peer in one request, then hand over again what is held for it."""
        peer.kicks += 1
        if peer.kicks > 1 and (peer.state is None or not peer.state.rx_bytes):
            self.next_way(peer)
        peer.keepalive, peer.held_back = True, False
        peer.phase, peer.recovery, peer.rx_mark = Phase.TRYING, None, 0
        self.data.unsettle(peer)
        peer.activity.reset(now)
        self.touched(peer)
        self.begin(now, peer)
        self.counters.add("peer.kicked")
        prefixes = self.data.table.prefixes(peer.key)
        change = kick(peer.key, peer.endpoint, prefixes, self.settings.keepalive_s)
        configure = ConfigurePeers(Tunnel.DATA, change)
        actions = [configure, *self.contact.all_of(now, peer.key, Event.KICKED)]
        # Of everybody: the server that answered may not reach the peer, which then knows nothing.
        return actions + (self.requests.ask(now, prefixes[0], everybody=True) if ask else [])

    def next_way(self, peer: Peer) -> bool:
        """Choose the next of a peer's endpoints; False where it has no other."""
        if len(peer.ways) < 2:
            return False
        at = peer.ways.index(peer.endpoint) if peer.endpoint in peer.ways else -1
        peer.endpoint = peer.ways[(at + 1) % len(peer.ways)]
        self.counters.add("peer.way_changed")
        return True

    def poke(self, *peers: Peer) -> list[Action]:
        """Send something to peers now, and ask them for a sign of life."""
        changes: list[PeerConfig] = []
        for peer in peers:
            peer.keepalive = True
            self.touched(peer)
            changes.extend(
                PeerConfig(peer.key, keepalive_s=keepalive_s, update_only=True)
                for keepalive_s in (0, self.settings.keepalive_s)
            )
        configure = [ConfigurePeers(Tunnel.DATA, tuple(changes))] if changes else []
        return [*configure, *(probe for peer in peers for probe in self.probe(peer))]

    def probe(self, peer: Peer) -> list[Action]:
        """Send an echo request through the tunnel; its answer shows in the byte counters."""
        for prefix in self.data.table.prefixes(peer.key):
            own = next((o for o in self.identity.prefixes if o.version == prefix.version), None)
            if own is None:
                continue
            self._probes += 1
            self.counters.add("peer.probed")
            source, target = packets.host_in(own), packets.host_in(prefix)
            return [Inject((packets.echo_request(source, target, self._probes),))]
        return []

    def adopt_routes(self, prefixes: tuple[IPNetwork, ...]) -> list[Action]:
        """Make the routes of peers that were found on the device."""
        return [AddRoutes(prefixes)] if prefixes else []
