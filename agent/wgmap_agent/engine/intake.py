"""Takes in what is heard: answers, pushes, and handshake messages that came to the data port.

They become peers, routes and packets that go their way; what is done to a peer is in
``data_plane``.
"""

from collections.abc import Callable
from functools import partial

from wgmap.addresses import Endpoint, IPNetwork, host_prefix
from wgmap.lisp.messages import Record
from wgmap.wg.device import PeerConfig
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.data_peers import Installed
from wgmap_agent.engine.data_plane import DataPlane
from wgmap_agent.engine.flows import Event, Flow, State
from wgmap_agent.engine.mappings import PeerOffer, Reading, is_inside
from wgmap_agent.engine.peers import Peer, Phase, Role
from wgmap_agent.engine.requests import Answer
from wgmap_agent.engine.steps import stamped
from wgmap_agent.engine.types import Action, ConfigurePeers, Redeliver, Tunnel


class Intake:
    """Works on the peers and flows of a data plane."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane
        self._settling: dict[PublicKey, float] = {}  # peers whose initiation may be in WireGuard

    # --------------------------------------------------------------------------------- answers

    def answer(self, now: float, answer: Answer) -> list[Action]:
        """Take in the end of a question."""
        reading = self._plane.reader.read(answer.records, self._plane.families)
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
        if self._plane.contact.get(target.network_address) is not None:
            return True
        return self._plane.data.table.owner(target.network_address) is not None

    def _answered(self, now: float, offer: PeerOffer, answer: Answer) -> list[Action]:
        known = self._plane.data.peers.get(offer.key)
        flows = self._flows_of(offer)
        role = Role.PULLER if flows or known is None else known.role
        installed = self._plane.data.take_in(now, offer, role, wins=answer.refresh)
        disputed = self._overruled(now) if answer.refresh else self._disputed(now, answer.target)
        if installed is None:
            return disputed
        self._plane.stamp(installed)
        self._plane.trust(now, installed, answer.records, confirmed=answer.authoritative)
        if installed.peer.recovery is not None and answer.authoritative:
            installed.peer.recovery.answered = True
        actions = installed.actions() + disputed
        if installed.created:
            self._plane.begin(now, installed.peer)
        else:
            actions += self._after_answer(now, installed)
        actions += self._plane.displaced(now, installed) + self._found(now, installed, offer)
        waiting = tuple(flow.destination for flow in flows)
        return stamped(now, actions, waiting) if waiting else actions

    def _after_answer(self, now: float, installed: Installed) -> list[Action]:
        """Use an answer for a peer that is installed already."""
        peer = installed.peer
        if peer.held_back and peer.role is not Role.BOTH_SECOND:
            return self._plane.start(now, peer)
        if installed.endpoint_changed and peer.phase is Phase.TRYING:
            return self._plane.kick(now, peer, ask=False)
        if peer.recovery is None:
            return []
        reset = self._reset_endpoint(installed) if peer.recovery.unanswered else []
        return [*reset, *self._plane.poke(peer)]

    def _reset_endpoint(self, installed: Installed) -> list[Action]:
        """Put the advertised endpoint back where WireGuard has another and the peer is silent."""
        peer = installed.peer
        roamed = peer.state is not None and peer.state.endpoint != peer.endpoint
        if installed.endpoint_changed or not roamed:
            return []
        self._plane.counters.add("peer.endpoint_reset")
        change = PeerConfig(peer.key, peer.endpoint, update_only=True)
        return [ConfigurePeers(Tunnel.DATA, (change,))]

    def _nothing(self, now: float, answer: Answer, reading: Reading) -> list[Action]:
        """Use an answer without any peer: negative, refused as a whole, or none in time."""
        flow = self._plane.contact.get(answer.target.network_address)
        record = reading.negative[0] if reading.negative else None
        denied = record is not None and answer.authoritative
        actions = self._gone(now, answer.target) if denied else []
        if flow is None or flow.key is not None:
            return actions  # or it waits for a peer's tunnel: a push was before the answer
        if record is None:
            return actions + self._plane.contact.on(now, flow, Event.GAVE_UP)
        claim = self._plane.data.table.owner(flow.destination)
        if claim is not None:  # of a wider prefix than what is denied, or without authority
            return actions + self._assign(now, self._plane.data.peers[claim.key], flow)
        refusal = self._plane.negative.note(
            now, flow.destination, record, authoritative=answer.authoritative
        )
        return actions + self._plane.contact.on(now, flow, Event.NOT_FOUND, refusal)

    def _gone(self, now: float, target: IPNetwork) -> list[Action]:
        """Drop a prefix that a server in touch with the quorum does not know any more."""
        self._plane.cache.forget_prefix(now, target)
        known = self._plane.data.table.get(target)
        if known is None:
            return []
        return self._withdraw(now, known.prefix, known.version)

    def _unserved(self, now: float, target: IPNetwork) -> list[Action]:
        """End a flow whose answer was of no use (every record refused), so nothing is held."""
        flow = self._plane.contact.get(target.network_address)
        if flow is None or flow.key is not None or self._plane.requests.is_asking(target):
            return []
        return self._plane.contact.on(now, flow, Event.GAVE_UP)

    # --------------------------------------------------------------------------------------- pushes

    def push(self, now: float, records: tuple[Record, ...]) -> list[Action]:
        """Take in an unsolicited Map-Notify."""
        reading = self._plane.reader.read(records, self._plane.families)
        actions = self._withdrawals(now, reading)
        for offer in reading.peers.values():
            actions += self._rotates(now, offer, records) or self.pushed(now, offer, records)
        return actions

    def pushed(self, now: float, offer: PeerOffer, records: tuple[Record, ...]) -> list[Action]:
        """Take in what a push says of one peer."""
        both = bool(self._flows_of(offer)) and offer.key not in self._plane.data.peers
        followed = self._is_in_use(offer) and offer.key not in self._plane.data.peers
        installed = self._plane.data.take_in(now, offer, self._plane.role(offer.key, both=both))
        disputed = self._disputed(now)
        if installed is None:
            return disputed
        peer = installed.peer
        self._plane.stamp(installed)
        confirmed = all(one.authoritative for one in offer.prefixes)
        self._plane.trust(now, installed, records, confirmed=confirmed)
        second = installed.created and peer.role is Role.BOTH_SECOND
        peer.held_back = peer.held_back or followed or second
        actions = installed.actions() + disputed
        if installed.created:
            self._plane.counters.add("push.new_peer")
            self._plane.begin(now, peer)
            actions += self._missed(now, peer)
        else:
            actions += self._push_to_known(now, installed)
        actions += self._plane.displaced(now, installed)
        if followed:
            # It may not know us yet: our question tells it, and then we initiate.
            self._plane.counters.add("peer.key_changed")
            actions += self._plane.requests.ask(now, self._plane.data.table.prefixes(peer.key)[0])
        return actions + self._found(now, installed, offer)

    def _rotates(self, now: float, offer: PeerOffer, records: tuple[Record, ...]) -> list[Action]:
        """Try the new key of a peer that rotates beside its old one; empty: it does not."""
        changes = self._plane.successors.take_in(now, offer, records)
        return [] if changes is None else [ConfigurePeers(Tunnel.DATA, changes)]

    def _is_in_use(self, offer: PeerOffer) -> bool:
        """Say whether some prefix of an offer is now another key's."""
        for one in offer.prefixes:
            claim = self._plane.data.table.get(one.prefix)
            if claim is not None and claim.key != offer.key:
                return True
        return False

    def _push_to_known(self, now: float, installed: Installed) -> list[Action]:
        peer = installed.peer
        if peer.role is Role.PUSHED and peer.phase is not Phase.UP:
            peer.since = now  # it asks again: it is still there
        if installed.endpoint_changed and peer.phase is Phase.TRYING:
            return self._plane.kick(now, peer, ask=False)
        if installed.endpoint_changed and peer.recovery is not None:
            return self._plane.poke(peer)
        if peer.phase is Phase.TRYING and peer.role is Role.PULLER and not installed.newer:
            # It asked for us while we asked for it: two initiations may have crossed.
            peer.role = self._plane.role(peer.key, both=True)
            self._plane.handshakes.role_changed(self._plane.servers.rtt(), peer)
        return []

    # ----------------------------------------------------------------------------------- handshakes

    def initiation(self, now: float, source: Endpoint, at: float, packet: bytes) -> list[Action]:
        """Take in that an initiation came to the data port."""
        self._plane.arrivals.note(at, source, packet)
        key = self._plane.arrivals.awaited(source)
        peer = None if key is None else self._plane.data.peers.get(key)
        if peer is not None:
            self._begins_anew(now, at, peer)
            return self._missed(now, peer)
        if not self._plane.servers.all_silent(now):
            return []
        # Nobody can tell us of a peer that forgot nothing, or was rebooted as we were.
        return self.push(now, self._plane.cache.at(now, source))

    def response(self, now: float, source: Endpoint) -> list[Action]:
        """Take in that a handshake response came to the data port.

        Where initiations crossed it answers what is forgotten: a reading tells, and a kick is due.
        A forged one makes the routes too early: what a kick then drops is not held by us.
        """
        if self._plane.successors.answered(source):
            # Its owner sends there from now on, as it believes: it is for us to take it soon.
            self._plane.readings.hurry(now, Tunnel.DATA)
        key = self._plane.arrivals.awaited(source)
        peer = None if key is None else self._plane.data.peers.get(key)
        if peer is None or peer.phase is not Phase.TRYING:
            return []
        if self._plane.arrivals.since(peer.tried_at, source):
            if self._plane.handshakes.crossed(now, peer):
                self._plane.readings.hurry(now, Tunnel.DATA)
            return []
        peer.ours = True
        return self._answers(now, peer)

    def _answers(self, now: float, peer: Peer) -> list[Action]:
        """Let packets go their way to a peer whose handshake is under way on both sides."""
        peer.answered = True
        self._plane.contact.answered(now, peer.key)
        return self._plane.let_pass(peer)

    def _begins_anew(self, now: float, at: float, peer: Peer) -> None:
        """Note that a peer initiates though its response came: it may have lost that session.

        What was sent in it is sent again if the new one stands. Nobody else does this for 2 min.
        """
        if peer.ours and self._plane.contact.of(peer.key):
            peer.anew_at = at
            peer.check_at = now + self._plane.handshakes.poll(self._plane.servers.rtt())
            self._plane.data.unsettle(peer)

    def _missed(self, now: float, peer: Peer) -> list[Action]:
        """Let the device have the initiation of a new peer that may have come before the peer.

        At once where it came before we knew of the peer. While the peer was being set it may have
        come in time: it is given again when WireGuard has surely done with it. One that came right
        behind another one that was given again, as a kick may, was one too many for WireGuard.
        """
        came = self._plane.arrivals.last(now, peer.endpoint)
        if came is None or peer.phase is not Phase.PASSIVE:
            return []
        at, packet = came
        if at < peer.since:
            self._plane.counters.add("peer.came_early")
        elif now < (due := self._taken_at(peer, at)):
            self._settling[peer.key] = due
            return [] if self._plane.contact.of(peer.key) else self._answers(now, peer)
        return self._again(now, peer, at, packet)

    def _taken_at(self, peer: Peer, at: float) -> float:
        """Return when WireGuard is done with an initiation that came, and takes another one."""
        settings = self._plane.settings
        free = peer.again_at + settings.flood_s if self._is_too_many(peer, at) else at
        return max(at + settings.settle_s, free)

    def _is_too_many(self, peer: Peer, at: float) -> bool:
        return peer.again_at <= at < peer.again_at + self._plane.settings.flood_s

    def settled(self, now: float) -> list[Action]:
        """Go on with the peers whose initiation came while they were being set."""
        actions: list[Action] = []
        for key in [key for key, at in self._settling.items() if at <= now]:
            del self._settling[key]
            peer = self._plane.data.peers.get(key)
            came = None if peer is None else self._plane.arrivals.last(now, peer.endpoint)
            if peer is not None and came is not None and peer.phase is Phase.PASSIVE:
                actions += self._again(now, peer, *came)
        return actions

    def deadline(self) -> float | None:
        """Return when ``settled`` has something to do."""
        return min(self._settling.values(), default=None)

    def _again(self, now: float, peer: Peer, at: float, packet: bytes) -> list[Action]:
        """Give an initiation to the device again, where it may not have known the peer.

        Once it has answered that it may initiate no more, so packets to the peer go into it.
        """
        again: list[Action] = []
        if self._is_too_many(peer, at):
            again = [Redeliver(packet, peer.since)]  # whenever the device was set: it dropped it
        elif at < peer.since + self._plane.settings.race_s:
            again = [Redeliver(packet, at)]
        if again:
            peer.again_at = now
        peer.answered = True
        held = self._plane.contact.all_of(now, peer.key, Event.RELEASED)
        passing = self._answers(now, peer)
        # The answer to the first packet needs the route; but what we hold goes before what follows
        # the route, and behind the initiation.
        return [*again, *held, *passing] if held else [*passing, *again]

    # -------------------------------------------------------------------------- shared by the above

    def _flows_of(self, offer: PeerOffer) -> tuple[Flow, ...]:
        flows = self._plane.contact.within(one.prefix for one in offer.prefixes)
        return tuple(flow for flow in flows if flow.state is not State.LEFT)

    def _found(self, now: float, installed: Installed, offer: PeerOffer) -> list[Action]:
        """Let the flows go on that waited for this mapping, and end their questions."""
        peer = installed.peer
        self._plane.negative.over(one.prefix for one in offer.prefixes)
        actions: list[Action] = []
        for flow in self._flows_of(offer):
            claim = self._plane.data.table.owner(flow.destination)
            if flow.key is not None or claim is None or claim.key != peer.key:
                continue
            actions += self._assign(now, peer, flow)
        return actions

    def _assign(self, now: float, peer: Peer, flow: Flow) -> list[Action]:
        """Let a flow wait for a peer's tunnel, and end its question."""
        self._plane.contact.assign(flow, peer.key)
        self._plane.requests.forget(host_prefix(flow.destination))
        if peer.phase is Phase.PASSIVE and peer.role is Role.PUSHED:
            self._plane.both_pull(now, peer)
        if peer.phase is Phase.PASSIVE:
            return self._plane.contact.on(now, flow, Event.FOUND_BOTH_PULL)
        actions = self._plane.contact.on(now, flow, Event.FOUND)
        if peer.phase is Phase.UP:
            actions += self._plane.contact.all_of(now, peer.key, Event.STANDS)
        return actions

    def _disputed(self, now: float, target: IPNetwork | None = None) -> list[Action]:
        """Have a refresh tell whose a prefix is; ``target`` is what was asked for."""
        prefix = self._plane.data.take_disputed()
        if prefix is None:
            return []
        if target is None or not is_inside(target, prefix):
            if self._plane.data.table.get(prefix) is None:
                return []  # a late push only brings back what is gone
            target = prefix
        self._plane.counters.add("mapping.disputed")
        return self._plane.requests.ask(now, target, refresh=True)

    def _overruled(self, now: float) -> list[Action]:
        """Let go of what a refresh gave to others."""
        actions: list[Action] = []
        for prefix in self._plane.data.take_overruled():
            self._plane.counters.add("mapping.overruled")
            actions += self._gone_without(now, prefix, partial(self._plane.data.drop, prefix))
        return actions

    def _withdrawals(self, now: float, reading: Reading) -> list[Action]:
        actions: list[Action] = []
        self._plane.servers.revocations.remember(reading.revoked)
        for key in reading.revoked:
            self._plane.cache.forget(now, key)
            if self._plane.successors.drop(key):
                gone = (PeerConfig(key, remove=True),)
                actions.append(ConfigurePeers(Tunnel.DATA, gone))
            if key in self._plane.data.peers:
                self._plane.counters.add("peer.revoked")
                actions += self._plane.remove(now, key)
        for one in reading.withdrawn:
            self._plane.cache.forget_prefix(now, one.prefix)
            actions += self._withdraw(now, one.prefix, one.version)
            for part in self._plane.data.parts(one, reading):
                actions += self._withdraw(now, part, one.version)
        return actions

    def _withdraw(self, now: float, prefix: IPNetwork, version: int) -> list[Action]:
        return self._gone_without(now, prefix, partial(self._plane.data.withdraw, prefix, version))

    def _gone_without(
        self,
        now: float,
        prefix: IPNetwork,
        leave: Callable[[], tuple[PublicKey | None, list[Action]]],
    ) -> list[Action]:
        """Let a prefix go, and end what waits for its peer's tunnel."""
        flows = [flow for flow in self._plane.contact.within((prefix,)) if flow.key is not None]
        gone, actions = leave()
        if not actions:
            return []
        for flow in flows:
            actions += self._plane.contact.on(now, flow, Event.PEER_GONE)
        if gone is not None:
            actions += self._plane.contact.all_of(now, gone, Event.PEER_GONE)
        return actions
