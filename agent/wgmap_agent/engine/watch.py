"""Judges the data peers by readings of the device: handshakes, silence, idleness, repair."""

from wgmap.addresses import IPNetwork
from wgmap.wg.device import DeviceState, PeerConfig, PeerState
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.data_plane import DataPlane
from wgmap_agent.engine.flows import Event
from wgmap_agent.engine.handshakes import Step
from wgmap_agent.engine.intake import Intake
from wgmap_agent.engine.mappings import is_inside, overlaps
from wgmap_agent.engine.moves import Suspicion
from wgmap_agent.engine.peers import Peer, Phase, Role
from wgmap_agent.engine.succession import Succession
from wgmap_agent.engine.table import Claim, Verdict
from wgmap_agent.engine.types import (
    Action,
    ConfigurePeers,
    ContactStep,
    DeleteRoutes,
    Stamp,
    Tunnel,
)
from wgmap_agent.engine.ways import Ways

RESPONSE_BYTES = 92  # WireGuard's protocol paper, section 5.4.3
MOMENT_S = 0.001  # a handshake's time is the wall clock's: it may come out a little early
KICK_AFTER_TRIES = 3  # questions and pokes before a session is taken for dead
KICK_AFTER_ALL = 5  # and by the side that leaves the kick to the other, which may know no session


class Watch:
    """Works on the peers of a data plane."""

    def __init__(self, plane: DataPlane, intake: Intake) -> None:
        self._plane = plane
        self._succession = Succession(plane, intake)
        self._ways = Ways(plane)
        self._watch_at: float | None = None
        self.adopted = False  # whether it is known what a former run left on the device

    # --------------------------------------------------------------------------------- readings

    def deadline(self) -> float | None:
        """Return when ``due`` asks for a reading."""
        readings = self._plane.readings
        earliest = readings.not_before(Tunnel.DATA)
        wanted = None if earliest is None else self._wanted(earliest)
        return readings.deadline(Tunnel.DATA, wanted)

    def _wanted(self, earliest: float) -> float | None:
        """Return when the device is to be read next, or any time until ``earliest`` if it is then.

        Every event asks for it, and many hundreds of peers may be awaited.
        """
        # The readings' own pause (``poll_s``) is between those that are wanted at any time.
        next_at = float("-inf") if self._plane.successors.all() else self._watch_at
        next_at = float("inf") if next_at is None else next_at
        settled: list[PublicKey] = []
        known = self._plane.data.peers
        for key, peer in self._plane.data.unsettled.items():
            if next_at <= earliest:
                break
            if known.get(key) is not peer or _is_settled(peer):
                settled.append(key)
            elif (at := self._check_at(peer)) < next_at:
                next_at = at
        for key in settled:
            del self._plane.data.unsettled[key]
        return next_at if next_at < float("inf") else None

    def _check_at(self, peer: Peer) -> float:
        """Return when a peer in doubt is to be looked at."""
        at = float("inf") if peer.check_at is None else peer.check_at
        if peer.way_back.trial is not None:
            return float("-inf")
        if peer.recovery is not None:
            return min(at, peer.recovery.next_at)
        if peer.phase is Phase.UP:
            return min(at, self._plane.moves.suspect_at(peer.activity))
        return at

    def want(self, now: float) -> None:
        """Have the device read now."""
        self._watch_at = now

    def due(self, now: float) -> list[Action]:
        """Ask for a reading where one is wanted by now; of all peers only where their time came."""
        readings, at = self._plane.readings, self.deadline()
        if at is None or at > now:
            return []
        whole = not self.adopted or (self._watch_at is not None and self._watch_at <= now)
        return [readings.ask(now, Tunnel.DATA, None if whole else self._in_doubt())]

    def _in_doubt(self) -> frozenset[PublicKey]:
        successors = (one.offer.key for one in self._plane.successors.all())
        unsettled = (k for k, one in self._plane.data.unsettled.items() if not _is_settled(one))
        return frozenset((*unsettled, *successors))

    def read_some(
        self, now: float, keys: frozenset[PublicKey], state: DeviceState, wall: float
    ) -> list[Action]:
        """Take in what the data device says of these peers."""
        known = self._plane.data.peers
        actions = self._succession.read(now, state, keys)
        actions += self._peers(now, [known[k] for k in keys if k in known], state, wall)
        if self._watch_at is None and known:
            self._watch_at = now + self._pause_s()
        return actions

    def read(self, now: float, state: DeviceState, wall: float) -> list[Action]:
        """Take in a reading of the data device."""
        plane = self._plane
        actions = [] if self.adopted else self._adopt(now, state, wall)
        known = plane.data.peers
        # By what was known when it was read: whose key is followed now is seen to by that.
        unknown = [k for k in state.peers if k not in known and k not in plane.successors]
        actions += self._succession.read(now, state)
        if unknown:
            plane.counters.add("peer.removed_unknown", len(unknown))
            changes = tuple(PeerConfig(key, remove=True) for key in unknown)
            actions.append(ConfigurePeers(Tunnel.DATA, changes))
        actions += self._peers(now, list(known.values()), state, wall)
        self._watch_at = now + self._pause_s() if known else None
        return actions

    def _peers(
        self, now: float, peers: list[Peer], state: DeviceState, wall: float
    ) -> list[Action]:
        actions: list[Action] = []
        number = self._plane.readings.number(Tunnel.DATA)
        for peer in peers:
            if peer.changed_in < number and peer.key in self._plane.data.peers:
                actions += self._peer(now, peer, state.peers.get(peer.key), wall)
        return actions

    def _pause_s(self) -> float:
        """Return how long to wait for the next look at peers that stand.

        WireGuard tells of all or none: a device of thousands is looked at more seldom.
        """
        settings = self._plane.settings
        rest = settings.watch_rest * self._plane.readings.took(Tunnel.DATA)
        return max(settings.watch_s, min(rest, settings.watch_cap_s))

    def _peer(self, now: float, peer: Peer, state: PeerState | None, wall: float) -> list[Action]:
        if state is None:
            return self._repair(now, peer)
        peer.state = state
        if state.last_handshake is not None:
            peer.stood_at = now - max(0.0, wall - state.last_handshake)
        peer.activity.observe(now, state)
        actions = self._check_allowed(peer, state) + self._succession.show(now, peer, state)
        if peer.phase is Phase.UP:
            return actions + self._prove(now, peer, state) + self._watch(now, peer)
        return actions + self._handshake(now, peer, state)

    def _repair(self, now: float, peer: Peer) -> list[Action]:
        """Add a peer again that somebody took from the device."""
        plane = self._plane
        plane.counters.add("peer.added_again")
        peer.role, peer.phase = Role.PULLER, Phase.TRYING
        peer.since = now
        return plane.kick(now, peer, ask=True)

    def _check_allowed(self, peer: Peer, state: PeerState) -> list[Action]:
        wanted = self._plane.data.table.prefixes(peer.key)
        if wanted == state.allowed_ips or set(wanted) == set(state.allowed_ips):
            return []
        self._plane.counters.add("peer.allowed_ips_repaired")
        self._plane.touched(peer)
        change = PeerConfig(peer.key, allowed_ips=wanted, update_only=True)
        return [ConfigurePeers(Tunnel.DATA, (change,))]

    # -------------------------------------------------------------------------------- handshakes

    def _handshake(self, now: float, peer: Peer, state: PeerState) -> list[Action]:
        plane = self._plane
        step = plane.handshakes.judge(now, plane.servers.rtt(), peer, state)
        if step is Step.STANDS:
            return self._stands(now, peer, state)
        if step is Step.START:
            plane.counters.add("peer.fallback")
            return plane.start(now, peer)
        if step is Step.KICK:
            return plane.kick(now, peer, ask=True)
        if step is Step.GIVE_UP:
            plane.counters.add("peer.never_stood")
            return plane.remove(now, peer.key)
        return []

    def _stands(self, now: float, peer: Peer, state: PeerState) -> list[Action]:
        plane = self._plane
        plane.counters.add("peer.stands")
        peer.phase, peer.kicks = Phase.UP, 0
        peer.activity.heard_at = now
        plane.remember(now, peer)
        peer.held_back = False
        waited = tuple(flow.destination for flow in plane.contact.of(peer.key))
        passed = [*plane.contact.all_of(now, peer.key, Event.STANDS), *plane.let_pass(peer, waited)]
        if waited:
            passed.append(Stamp(waited, ContactStep.STANDS, peer.stood_at))
        return [*passed, *self._prove(now, peer, state), *self._clear_keepalive(peer)]

    def _prove(self, now: float, peer: Peer, state: PeerState) -> list[Action]:
        """Let the copies of what was sent go, or send it again where the session was replaced.

        To the initiator a session stands with the response, and the other side may lose it after
        that. Anything else that comes shows that it did not. When it initiates by itself instead,
        and that handshake is complete, it did.
        """
        plane = self._plane
        peer.check_at = None
        if not plane.contact.of(peer.key):
            peer.anew_at = None
        elif peer.anew_at is None:
            if not peer.ours or state.rx_bytes - peer.rx_mark > RESPONSE_BYTES:
                return plane.contact.proved(now, peer.key)
        elif peer.stood_at is not None and peer.stood_at > peer.anew_at - MOMENT_S:
            peer.anew_at = None
            plane.counters.add("peer.sent_again")
            events = (Event.KICKED, Event.STANDS)
            again = [one for event in events for one in plane.contact.all_of(now, peer.key, event)]
            return again + plane.contact.proved(now, peer.key)
        else:
            peer.check_at = now + plane.handshakes.poll(plane.servers.rtt())
        return []

    def _clear_keepalive(self, peer: Peer) -> list[Action]:
        if not peer.keepalive:
            return []
        peer.keepalive = False
        change = PeerConfig(peer.key, keepalive_s=0, update_only=True)
        return [ConfigurePeers(Tunnel.DATA, (change,))]

    # ----------------------------------------------------------------------- peers that stood

    def _watch(self, now: float, peer: Peer) -> list[Action]:
        plane = self._plane
        since = peer.unconfirmed_since
        if since is not None and now - since >= plane.settings.unconfirmed_s:
            plane.counters.add("peer.unconfirmed_removed")
            return plane.remove(now, peer.key)
        if now - peer.activity.data_at >= plane.identity.idle_s:
            plane.counters.add("peer.idle_removed")
            return plane.remove(now, peer.key)
        verdict, peer.recovery = plane.moves.judge(
            now, plane.servers.rtt(), peer.activity, peer.recovery
        )
        if not _is_settled(peer):
            plane.data.unsettle(peer)
        if verdict is Suspicion.PROBE:
            return plane.probe(peer)
        if verdict is Suspicion.LOOK_FOR:
            return self._look_for(now, peer)
        if verdict is Suspicion.FOUND:
            plane.counters.add("peer.found_again")
            return self._clear_keepalive(peer)
        return [] if peer.recovery is not None else self._at_rest(now, peer)

    def _at_rest(self, now: float, peer: Peer) -> list[Action]:
        """See to a peer that is heard; a former run that looked for it left its keepalive on."""
        return [*self._clear_keepalive(peer), *self._ways.watch(now, peer)]

    def _look_for(self, now: float, peer: Peer) -> list[Action]:
        plane = self._plane
        recovery = peer.recovery
        plane.counters.add("peer.looked_for")
        enough = KICK_AFTER_TRIES if self._kicks(peer) else KICK_AFTER_ALL
        if recovery is not None and recovery.answered and recovery.tries >= enough:
            peer.since = now
            peer.role = Role.PULLER if peer.role is Role.PUSHED else peer.role
            return plane.kick(now, peer, ask=True)
        prefix = plane.data.table.prefixes(peer.key)[0]
        asked = plane.requests.ask(now, prefix, refresh=True)
        return [*asked, *self._ways.silent(peer), *plane.poke(peer)]

    def _kicks(self, peer: Peer) -> bool:
        if peer.role in (Role.PULLER, Role.BOTH_FIRST):
            return True
        return peer.role is Role.ADOPTED and self._plane.identity.data_key < peer.key

    # --------------------------------------------------------------------------------- adoption

    def _adopt(self, now: float, state: DeviceState, wall: float) -> list[Action]:
        """Take over the peers that a former run left on the device, and ask for them."""
        self.adopted = True
        plane = self._plane
        routes: list[IPNetwork] = []
        for one in state.peers.values():
            if one.key in plane.data.peers or not self._is_adoptable(one):
                continue
            taken = [p for p in one.allowed_ips if self._claim(now, one.key, p)]
            if taken:
                peer = self._adopted_peer(now, one, wall)
                plane.data.peers[one.key] = peer
                plane.data.unsettle(peer)
                plane.data.renew(peer, peer.renew_at)
                routes += taken
                plane.counters.add("peer.adopted")
        return plane.adopt_routes(tuple(routes)) + self._routes_left(state)

    def _routes_left(self, state: DeviceState) -> list[Action]:
        """Delete the routes of a former run whose prefix is nobody's any more: it was withdrawn."""
        table, overlay = self._plane.data.table, self._plane.identity.overlay
        left = tuple(
            prefix
            for one in state.peers.values()
            for prefix in one.allowed_ips
            if table.get(prefix) is None and any(is_inside(prefix, wide) for wide in overlay)
        )
        return [DeleteRoutes(left)] if left else []

    def _claim(self, now: float, key: PublicKey, prefix: IPNetwork) -> bool:
        verdict = self._plane.data.table.offer(Claim(prefix, key, 0, now))
        return verdict in (Verdict.NEW, Verdict.MOVED)

    def _is_adoptable(self, state: PeerState) -> bool:
        identity = self._plane.identity
        return state.key != identity.data_key and all(
            any(is_inside(prefix, wide) for wide in identity.overlay)
            and not any(overlaps(prefix, own) for own in identity.prefixes)
            for prefix in state.allowed_ips
        )

    def _adopted_peer(self, now: float, state: PeerState, wall: float) -> Peer:
        plane = self._plane
        stood = state.last_handshake is not None
        fresh = stood and wall - (state.last_handshake or 0.0) < plane.settings.standing_s
        spread = plane.settings.revalidate_spread_s * plane.rng.random()
        peer = Peer(
            key=state.key,
            endpoint=state.endpoint,
            role=Role.ADOPTED,
            phase=Phase.UP if stood else Phase.PASSIVE,
            since=now,
            check_at=None if stood else now,
            renew_at=now + spread,
            routed=True,  # adopt_routes
            keepalive=bool(state.keepalive_s),
        )
        peer.changed_in = plane.readings.number(Tunnel.DATA) - 1
        peer.activity.reset(now)
        peer.activity.read_at = None
        if not fresh:
            peer.activity.data_at = now
        return peer


def _is_settled(peer: Peer) -> bool:
    in_doubt = peer.recovery is not None or peer.activity.unanswered_since is not None
    in_doubt = in_doubt or peer.way_back.trial is not None or peer.check_at is not None
    return peer.phase is Phase.UP and not in_doubt
