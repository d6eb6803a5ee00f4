"""The data side: packets, answers and pushes become peers, routes and injected packets."""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from wgmap.addresses import Endpoint, IPAddress, IPNetwork, host_prefix
from wgmap.lisp.messages import Record
from wgmap.wg.device import PeerConfig
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine import packets
from wgmap_agent.engine.arrivals import Arrivals
from wgmap_agent.engine.contact import FirstContact
from wgmap_agent.engine.counters import Counters
from wgmap_agent.engine.data_peers import DataPeers, Installed
from wgmap_agent.engine.flows import Event, Flow
from wgmap_agent.engine.handshakes import Handshakes, kick
from wgmap_agent.engine.mappings import PeerOffer, Reader, Reading, is_inside
from wgmap_agent.engine.moves import Moves
from wgmap_agent.engine.negative import Negative
from wgmap_agent.engine.peers import Peer, Phase, Role
from wgmap_agent.engine.readings import Readings
from wgmap_agent.engine.requests import Answer, Requests
from wgmap_agent.engine.servers import Servers
from wgmap_agent.engine.settings import Settings
from wgmap_agent.engine.steps import stamped
from wgmap_agent.engine.successors import Successors
from wgmap_agent.engine.types import (
    Action,
    AddRoutes,
    CachedPeer,
    ConfigurePeers,
    ContactStep,
    Identity,
    Inject,
    Redeliver,
    Stamp,
    Tunnel,
)


class DataPlane:
    """Installs and removes data peers; ``watch`` judges them by readings of the device."""

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

    # --------------------------------------------------------------------------------- answers

    def answer(self, now: float, answer: Answer) -> list[Action]:
        """Take in the end of a question."""
        reading = self.reader.read(answer.records, self.families)
        actions = self._withdrawals(now, reading)
        wanted = self._is_wanted(answer.target)
        for offer in reading.peers.values():
            if wanted:
                rotates = self._rotates(now, offer, answer.records)
                actions += rotates or self._answered(now, offer, answer)
        if not reading.peers:
            actions += self._nothing(now, answer, reading)
        return actions + self._unserved(now, answer.target)

    def _is_wanted(self, target: IPNetwork) -> bool:
        """Say whether a flow or an installed peer stands behind a question."""
        if self.contact.get(target.network_address) is not None:
            return True
        return self.data.table.owner(target.network_address) is not None

    def _answered(self, now: float, offer: PeerOffer, answer: Answer) -> list[Action]:
        known = self.data.peers.get(offer.key)
        flows = self._flows_of(offer)
        role = Role.PULLER if flows or known is None else known.role
        installed = self.data.take_in(now, offer, role, wins=answer.refresh)
        disputed = self._overruled(now) if answer.refresh else self._disputed(now, answer.target)
        if installed is None:
            return disputed
        self.stamp(installed)
        self.trust(now, installed, answer.records, confirmed=answer.authoritative)
        if installed.peer.recovery is not None and answer.authoritative:
            installed.peer.recovery.answered = True
        actions = installed.actions() + disputed
        if installed.created:
            self.begin(now, installed.peer)
        else:
            actions += self._after_answer(now, installed)
        actions += self.displaced(now, installed) + self._found(now, installed, offer)
        waiting = tuple(flow.destination for flow in flows)
        return stamped(now, actions, waiting) if waiting else actions

    def _after_answer(self, now: float, installed: Installed) -> list[Action]:
        """Use an answer for a peer that is installed already."""
        peer = installed.peer
        if peer.held_back and peer.role is not Role.BOTH_SECOND:
            return self.start(now, peer)
        if installed.endpoint_changed and peer.phase is Phase.TRYING:
            return self.kick(now, peer, ask=False)
        if peer.recovery is None:
            return []
        reset = self._reset_endpoint(installed) if peer.recovery.unanswered else []
        return [*reset, *self.poke(peer)]

    def _reset_endpoint(self, installed: Installed) -> list[Action]:
        """Put the advertised endpoint back where WireGuard has another and the peer is silent."""
        peer = installed.peer
        roamed = peer.state is not None and peer.state.endpoint != peer.endpoint
        if installed.endpoint_changed or not roamed:
            return []
        self.counters.add("peer.endpoint_reset")
        change = PeerConfig(peer.key, peer.endpoint, update_only=True)
        return [ConfigurePeers(Tunnel.DATA, (change,))]

    def _nothing(self, now: float, answer: Answer, reading: Reading) -> list[Action]:
        """Use an answer without any peer: negative, refused as a whole, or none in time."""
        flow = self.contact.get(answer.target.network_address)
        record = reading.negative[0] if reading.negative else None
        denied = record is not None and answer.authoritative
        actions = self._gone(now, answer.target) if denied else []
        if flow is None:
            return actions
        if record is None:
            return actions + self.contact.on(now, flow, Event.GAVE_UP)
        refusal = self.negative.note(
            now, flow.destination, record, authoritative=answer.authoritative
        )
        return actions + self.contact.on(now, flow, Event.NOT_FOUND, refusal)

    def _gone(self, now: float, target: IPNetwork) -> list[Action]:
        """Drop a prefix that a server in touch with the quorum does not know any more."""
        self.cache.forget_prefix(now, target)
        known = self.data.table.get(target)
        if known is None:
            return []
        return self._withdraw(now, known.prefix, known.version)

    def _unserved(self, now: float, target: IPNetwork) -> list[Action]:
        """End a flow whose answer was of no use (every record refused), so nothing is held."""
        flow = self.contact.get(target.network_address)
        if flow is None or flow.key is not None or self.requests.is_asking(target):
            return []
        return self.contact.on(now, flow, Event.GAVE_UP)

    # ---------------------------------------------------------------------------------- pushes

    def push(self, now: float, records: tuple[Record, ...]) -> list[Action]:
        """Take in an unsolicited Map-Notify."""
        reading = self.reader.read(records, self.families)
        actions = self._withdrawals(now, reading)
        for offer in reading.peers.values():
            actions += self._rotates(now, offer, records) or self.pushed(now, offer, records)
        return actions

    def pushed(self, now: float, offer: PeerOffer, records: tuple[Record, ...]) -> list[Action]:
        """Take in what a push says of one peer."""
        both = bool(self._flows_of(offer)) and offer.key not in self.data.peers
        followed = self._is_in_use(offer) and offer.key not in self.data.peers
        installed = self.data.take_in(now, offer, self._role(offer.key, both=both))
        disputed = self._disputed(now)
        if installed is None:
            return disputed
        peer = installed.peer
        self.stamp(installed)
        confirmed = all(one.authoritative for one in offer.prefixes)
        self.trust(now, installed, records, confirmed=confirmed)
        second = installed.created and peer.role is Role.BOTH_SECOND
        peer.held_back = peer.held_back or followed or second
        actions = installed.actions() + disputed
        if installed.created:
            self.counters.add("push.new_peer")
            self.begin(now, peer)
            actions += self._missed(now, peer)
        else:
            actions += self._push_to_known(now, installed)
        actions += self.displaced(now, installed)
        if followed:
            # It may not know us yet: our question tells it, and then we initiate.
            self.counters.add("peer.key_changed")
            actions += self.requests.ask(now, self.data.table.prefixes(peer.key)[0])
        return actions + self._found(now, installed, offer)

    def _rotates(self, now: float, offer: PeerOffer, records: tuple[Record, ...]) -> list[Action]:
        """Try the new key of a peer that rotates beside its old one; empty: it does not."""
        changes = self.successors.take_in(now, offer, records)
        return [] if changes is None else [ConfigurePeers(Tunnel.DATA, changes)]

    def initiation(self, now: float, source: Endpoint, at: float, packet: bytes) -> list[Action]:
        """Take in that an initiation came to the data port."""
        self.arrivals.note(at, source, packet)
        key = self.arrivals.awaited(source)
        peer = None if key is None else self.data.peers.get(key)
        if peer is not None:
            return self._missed(now, peer)
        if not self.servers.all_silent(now):
            return []
        # Nobody can tell us of a peer that forgot nothing, or was rebooted as we were.
        return self.push(now, self.cache.at(now, source))

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

    def response(self, now: float, source: Endpoint) -> list[Action]:
        """Take in that a handshake response came to the data port.

        Where initiations crossed it answers what is forgotten: then a reading has to tell.
        A forged one makes the routes too early: what a kick then drops is not held by us.
        """
        key = self.arrivals.awaited(source)
        peer = None if key is None else self.data.peers.get(key)
        if peer is None or peer.phase is not Phase.TRYING:
            return []
        if self.arrivals.since(peer.tried_at, source):
            return []
        peer.answered = True
        self.contact.answered(now, peer.key)
        return self.let_pass(peer)

    def _missed(self, now: float, peer: Peer) -> list[Action]:
        """Let the device have the initiation of a new peer that may have come before the peer.

        Once it has answered that it may initiate no more, so packets to the peer go into it.
        """
        came = self.arrivals.last(now, peer.endpoint)
        if came is None or peer.phase is not Phase.PASSIVE:
            return []
        at, packet = came
        if at < peer.since:
            self.counters.add("peer.came_early")
        peer.answered = True
        actions: list[Action] = (
            [Redeliver(packet, at)] if at < peer.since + self.settings.race_s else []
        )
        actions += self.contact.all_of(now, peer.key, Event.RELEASED)
        self.contact.answered(now, peer.key)
        return actions + self.let_pass(peer)

    def _disputed(self, now: float, target: IPNetwork | None = None) -> list[Action]:
        """Have a refresh tell whose a prefix is; ``target`` is what was asked for."""
        prefix = self.data.take_disputed()
        if prefix is None:
            return []
        if target is None or not is_inside(target, prefix):
            if self.data.table.get(prefix) is None:
                return []  # a late push only brings back what is gone
            target = prefix
        self.counters.add("mapping.disputed")
        return self.requests.ask(now, target, refresh=True)

    def _role(self, key: PublicKey, *, both: bool) -> Role:
        if not both:
            return Role.PUSHED
        self.counters.add("push.both_pull")
        return Role.BOTH_FIRST if self.identity.data_key < key else Role.BOTH_SECOND

    def _push_to_known(self, now: float, installed: Installed) -> list[Action]:
        peer = installed.peer
        if peer.role is Role.PUSHED and peer.phase is not Phase.UP:
            peer.since = now  # it asks again: it is still there
        if installed.endpoint_changed and peer.phase is Phase.TRYING:
            return self.kick(now, peer, ask=False)
        if installed.endpoint_changed and peer.recovery is not None:
            return self.poke(peer)
        if peer.phase is Phase.TRYING and peer.role is Role.PULLER and not installed.newer:
            # It asked for us while we asked for it: two initiations may have crossed.
            peer.role = self._role(peer.key, both=True)
            self.handshakes.role_changed(self.servers.rtt(), peer)
        return []

    def _is_in_use(self, offer: PeerOffer) -> bool:
        """Say whether some prefix of an offer is now another key's."""
        for one in offer.prefixes:
            claim = self.data.table.get(one.prefix)
            if claim is not None and claim.key != offer.key:
                return True
        return False

    # ----------------------------------------------------------------------- shared by the above

    def _flows_of(self, offer: PeerOffer) -> tuple[Flow, ...]:
        return self.contact.within(one.prefix for one in offer.prefixes)

    def begin(self, now: float, peer: Peer) -> None:
        """Set when the handshake of a peer that was just installed is judged first."""
        peer.answered = False
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

    def _found(self, now: float, installed: Installed, offer: PeerOffer) -> list[Action]:
        """Let the flows go on that waited for this mapping, and end their questions."""
        peer = installed.peer
        actions: list[Action] = []
        for flow in self._flows_of(offer):
            claim = self.data.table.owner(flow.destination)
            if flow.key is not None or claim is None or claim.key != peer.key:
                continue
            self.contact.assign(flow, peer.key)
            self.requests.forget(host_prefix(flow.destination))
            actions += self._let_go(now, peer, flow)
        return actions

    def _let_go(self, now: float, peer: Peer, flow: Flow) -> list[Action]:
        if peer.phase is Phase.PASSIVE and peer.role is Role.PUSHED:
            self.both_pull(now, peer)
        if peer.phase is Phase.PASSIVE:
            return self.contact.on(now, flow, Event.FOUND_BOTH_PULL)
        actions = self.contact.on(now, flow, Event.FOUND)
        if peer.phase is Phase.UP:
            actions += self.contact.all_of(now, peer.key, Event.STANDS)
        return actions

    def both_pull(self, now: float, peer: Peer) -> None:
        """Take our part where one that has asked for us is to get packets of ours."""
        peer.role = self._role(peer.key, both=True)
        if peer.phase is Phase.TRYING:
            self.handshakes.role_changed(self.servers.rtt(), peer)
        elif peer.role is Role.BOTH_FIRST:
            peer.phase = Phase.TRYING
            self.begin(now, peer)
        else:
            soon = now + self.handshakes.poll(self.servers.rtt())
            peer.check_at = min(peer.fallback_at, soon)

    def _withdrawals(self, now: float, reading: Reading) -> list[Action]:
        actions: list[Action] = []
        self.servers.revocations.remember(reading.revoked)
        for key in reading.revoked:
            self.cache.forget(now, key)
            if self.successors.drop(key):
                gone = (PeerConfig(key, remove=True),)
                actions.append(ConfigurePeers(Tunnel.DATA, gone))
            if key in self.data.peers:
                self.counters.add("peer.revoked")
                actions += self.remove(now, key)
        for one in reading.withdrawn:
            self.cache.forget_prefix(now, one.prefix)
            actions += self._withdraw(now, one.prefix, one.version)
            for part in self.data.parts(one, reading):
                actions += self._withdraw(now, part, one.version)
        return actions

    def _withdraw(self, now: float, prefix: IPNetwork, version: int) -> list[Action]:
        return self._gone_without(now, prefix, partial(self.data.withdraw, prefix, version))

    def _gone_without(
        self,
        now: float,
        prefix: IPNetwork,
        leave: Callable[[], tuple[PublicKey | None, list[Action]]],
    ) -> list[Action]:
        """Let a prefix go, and end what waits for its peer's tunnel."""
        flows = [flow for flow in self.contact.within((prefix,)) if flow.key is not None]
        gone, actions = leave()
        if not actions:
            return []
        for flow in flows:
            actions += self.contact.on(now, flow, Event.PEER_GONE)
        if gone is not None:
            actions += self.contact.all_of(now, gone, Event.PEER_GONE)
        return actions

    def _overruled(self, now: float) -> list[Action]:
        """Let go of what a refresh gave to others."""
        actions: list[Action] = []
        for prefix in self.data.take_overruled():
            self.counters.add("mapping.overruled")
            actions += self._gone_without(now, prefix, partial(self.data.drop, prefix))
        return actions

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
