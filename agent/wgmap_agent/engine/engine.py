"""The agent's engine: events and the time in, actions out. No I/O, no clock of its own.

The order of events is the order of calls; ``now`` never goes back. Every method returns the
actions that the runner executes in their order. After each call the runner asks ``deadline``
and calls ``timer`` then.
"""

import random
from ipaddress import IPv6Address

from wgmap.addresses import Endpoint, IPAddress
from wgmap.lisp import codec
from wgmap.lisp.mark import OF_REGISTER, Mark, marked
from wgmap.lisp.messages import CodecError, MapNotify, MapReply
from wgmap.wg.device import DeviceState
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.cache import Cache
from wgmap_agent.engine.capture import Capture
from wgmap_agent.engine.control import ControlTunnels
from wgmap_agent.engine.counters import Counters
from wgmap_agent.engine.data_plane import DataPlane
from wgmap_agent.engine.describing import described
from wgmap_agent.engine.intake import Intake
from wgmap_agent.engine.later import Later
from wgmap_agent.engine.moves import Budget
from wgmap_agent.engine.peers import Peer, Phase
from wgmap_agent.engine.questions import Questions
from wgmap_agent.engine.registration import Registration
from wgmap_agent.engine.renewals import Renewals
from wgmap_agent.engine.requests import Answer, Requests
from wgmap_agent.engine.resolutions import Resolution, Resolutions
from wgmap_agent.engine.retries import Retries
from wgmap_agent.engine.server_set import ServerSet
from wgmap_agent.engine.servers import Servers
from wgmap_agent.engine.settings import Settings
from wgmap_agent.engine.successors import Successors
from wgmap_agent.engine.traces import ServerTrace, Traces
from wgmap_agent.engine.types import (
    Action,
    CachedPeer,
    ConfigurePeers,
    EngineStatus,
    Identity,
    ReadPeers,
    RefreshEndpoints,
    Save,
    SavedState,
    Send,
    ServerInfo,
    Tunnel,
)
from wgmap_agent.engine.watch import Watch

MAX_PUT_OFF = 256


class Engine:
    """Decides everything that the agent does."""

    def __init__(
        self,
        identity: Identity,
        saved: SavedState,
        rng: random.Random,
        settings: Settings | None = None,
        cached: tuple[CachedPeer, ...] = (),
    ) -> None:
        """Make an engine; ``rng`` is its only source of randomness.

        ``cached``: peers that a former run had saved. Raises ValueError where the identity names
        no server or no prefix.
        """
        if not identity.servers or not identity.prefixes:
            msg = "an agent needs at least one server and one prefix"
            raise ValueError(msg)
        settings = settings or Settings()
        self.counters = Counters()
        self.last_failure: str | None = None
        self._identity = identity
        self._questions = Questions(identity)
        self._settings = settings
        self._rng = rng
        self._servers = Servers(identity.servers, settings, rng, saved)
        self._control = ControlTunnels(self._servers, settings, rng, self.counters)
        self._registration = Registration(
            identity, saved, self._servers, settings, rng, self.counters
        )
        self._cache = Cache(settings, self.counters, cached)
        self._requests = Requests(
            identity, self._servers, settings, rng, self.counters, self._cache
        )
        self._plane = DataPlane(
            identity, settings, rng, self.counters, self._servers, self._requests
        )
        self._intake = Intake(self._plane)
        self._readings = self._plane.readings
        self._server_set = ServerSet(
            identity, self._servers, self._control, settings, rng, self.counters
        )
        self._capture = Capture(self._plane)
        self._watch = Watch(self._plane, self._intake)
        self._renewals = Renewals(self._plane)
        self._resolutions = Resolutions()
        self._traces = Traces(identity, self._servers, rng)
        self._later = Later()
        self._retries = Retries(self._plane.data.table, self.counters)
        self._underlay: tuple[IPAddress, ...] = ()
        self._move_at: float | None = None  # a move that waits for the flapping limit
        self._move_changed = False  # and the addresses are others than before
        self._announced: PublicKey | None = None  # a new data key that is not acknowledged yet
        self._moves = Budget(self._settings.moves_per_s, self._settings.moves_burst)
        self._put_off: list[tuple[str, MapNotify, bytes]] = []  # pushes that came too early

    # ----------------------------------------------------------------------------------- events

    def start(self, now: float, underlay: tuple[IPAddress, ...]) -> list[Action]:
        """Begin: configure the control tunnels, read both devices, register."""
        self._set_underlay(underlay)
        self._servers.start(now)
        self._server_set.start(now)
        self._watch.want(now)
        actions = self._control.start(now)
        actions += self._readings.due(now, Tunnel.DATA, now)
        return actions + self._registration.change(now, underlay)

    def packet(self, now: float, packet: bytes) -> list[Action]:
        """Take in an IP packet from the TUN; bad ones are dropped and counted."""
        return self._capture.packet(now, packet)

    def datagram(self, now: float, source: IPv6Address, data: bytes) -> list[Action]:
        """Take in a datagram from port 4342 of ``source`` on the control interface.

        What does not come from a server, or is no message that servers send, changes nothing.
        """
        server = self._servers.name_of(source)
        if server is None:
            self.counters.add("datagram.not_a_server")
            return []
        try:
            message = codec.decode(data)
        except CodecError:
            self.counters.add("datagram.malformed")
            return []
        if not isinstance(message, MapReply | MapNotify):
            self.counters.add("datagram.unexpected_type")
            return []
        return self._message(now, server, message, data)

    def initiation(self, now: float, source: Endpoint, at: float, packet: bytes) -> list[Action]:
        """Take in that ``source`` sent a handshake initiation to the data port, at ``at``.

        ``packet``: as it came, with its IP header. Whose it is nobody knows, and it may be forged:
        WireGuard judges it, if it gets it again.
        """
        return self._intake.initiation(now, source, at, packet)

    def response(self, now: float, source: Endpoint) -> list[Action]:
        """Take in that ``source`` sent a handshake response to the data port.

        It too may be forged: it only has packets go their way without us sooner.
        """
        return self._intake.response(now, source)

    def peers_read(
        self, now: float, asked: ReadPeers, state: DeviceState, wall: float
    ) -> list[Action]:
        """Take in what was ``asked``; ``wall``: seconds since 1970, for handshake ages.

        Where that was about some peers, ``state`` has no others.
        """
        peers = len(state.peers) if asked.keys is None else None
        self._readings.done(now, asked.tunnel, peers)
        if asked.tunnel is Tunnel.CONTROL:
            return self._control.read(now, state, wall)
        if asked.keys is None:
            return [*self._watch.read(now, state, wall), *self._early(now)]
        return self._watch.read_some(now, asked.keys, state, wall)

    def addresses_changed(self, now: float, underlay: tuple[IPAddress, ...]) -> list[Action]:
        """Take in that an address or route of the underlay changed; ``underlay``: all of now."""
        changed = underlay != self._underlay
        self._set_underlay(underlay)
        if self._move_at is None and self._moves.allows(now):
            return self._move(now, changed=changed)
        if self._move_at is None:
            self._move_at = now + 1 / self._settings.moves_per_s
        self._move_changed = changed or self._move_changed
        return []

    def rotate(self, now: float, key: PublicKey, port: int) -> list[Action]:
        """Register another data key, at another port; peers are told once it is acknowledged."""
        self.successors.rotating = key
        if self._registration.key == key:
            return []  # an agent that was started anew meanwhile
        self._plane.reader.use_key(key)
        self._registration.use_key(key, port)
        self._announced = key
        return self._registration.change(now, self._underlay)

    @property
    def successors(self) -> Successors:
        """The new keys of peers that rotate, which a rotation of our own has regard to."""
        return self._plane.successors

    def stop(self, now: float) -> list[Action]:
        """End: what is to be saved is returned, nothing else is disturbed."""
        return [self._cache.save(now, self._servers.revocations.number)]

    def failed(self, now: float, action: Action, error: Exception) -> list[Action]:
        """Take in that an action could not be executed."""
        self.counters.add(f"failed.{type(action).__name__}")
        self.last_failure = f"{type(action).__name__}: {error}"
        if isinstance(action, ReadPeers):
            self._readings.done(now, action.tunnel)
        self._retries.failed(now, action)
        return []

    def timer(self, now: float) -> list[Action]:
        """Do what is due."""
        actions = self._later.due(now)
        actions += self._intake.settled(now)
        actions += self._retries.due(now, self._registration.saved())
        if self._move_at is not None and self._move_at <= now:
            self._moves.allows(now)
            actions += self._move(now, changed=self._move_changed)
        self._requests.notice_late(now)
        actions += self._registration.due(now)
        repeated, answers = self._requests.due(now)
        actions += repeated
        for answer in answers:
            actions += self._answered(now, answer)
        actions += self._plane.portions(now)
        actions += self._plane.contact.expire(now)
        silent = self._servers.newly_silent(now)
        if silent:
            self.counters.add("server.lost", len(silent))
            self._renewals.lost(now, silent)
        actions += self._renewals.due(now)
        actions += self._cache.due(now, self._servers.revocations.number)
        actions += self._server_set.due(now, self._requests)
        actions += self._probe_servers(now)
        actions += self._readings.due(now, Tunnel.CONTROL, self._control.deadline())
        actions += self._watch.due(now)
        return actions

    def deadline(self) -> float | None:
        """Return when ``timer`` must be called next; it may lie in the past."""
        times = (
            self._later.deadline(),
            self._intake.deadline(),
            self._retries.deadline(),
            self._move_at,
            self._registration.deadline(),
            self._requests.deadline(),
            self._plane.contact.deadline(),
            self._renewals.deadline(),
            self._cache.deadline(),
            self._server_set.deadline(),
            self._servers.deadline(),
            self._readings.deadline(Tunnel.CONTROL, self._control.deadline()),
            self._watch.deadline(),
        )
        return min((time for time in times if time is not None), default=None)

    # ---------------------------------------------------------------------------------- requests

    def resolve(self, now: float, eid: IPAddress) -> list[Action]:
        """Ask the servers for an EID on behalf of an operator; ``resolution`` has the answer.

        Nothing is installed by it.
        """
        target = self._resolutions.begin(eid)
        return self._requests.ask(now, target)

    def resolution(self, eid: IPAddress) -> Resolution | None:
        """Return what the last ``resolve`` of this EID brought; None: not answered yet."""
        return self._resolutions.get(eid)

    def trace(self, now: float, eid: IPAddress) -> list[Action]:
        """Ask every server for an EID and what became of it; ``traced`` has what came."""
        return self._traces.begin(now, eid)

    def traced(self, eid: IPAddress) -> tuple[ServerTrace, ...]:
        """Return what came of the last ``trace`` of this EID, a server each."""
        return self._traces.get(eid)

    def forget(self, now: float, eid: IPAddress) -> list[Action]:
        """Drop the data peer of an EID on behalf of an operator; empty where there is none.

        The next packet is a first contact. The other side keeps its own end until it is idle.
        """
        claim = self._plane.data.table.owner(eid)
        if claim is None:
            return []
        self.counters.add("peer.forgotten")
        return self._plane.remove(now, claim.key)

    def is_registered(self, now: float) -> bool:
        """Say whether our mapping is acknowledged as it is now; cheap, whatever peers there are."""
        return self._registration.is_registered(now)

    def servers(self) -> tuple[ServerInfo, ...]:
        """Return the map servers as they are known now, those learnt by a former run too."""
        return tuple(server.info for server in self._servers.all())

    def status(self, now: float) -> EngineStatus:
        """Describe the engine for ``wgmap-agent status``."""
        counters = {
            **self.counters.all(),
            "now.flows": len(self._plane.contact),
            "now.held_packets": self._plane.contact.held,
            "now.requests": len(self._requests),
            "now.cached_peers": len(self._cache),
            "now.unconfirmed_peers": self._plane.data.unconfirmed(),
            "now.untold_peers": self._plane.data.told_by(0),
            "now.once_told_peers": self._plane.data.told_by(1),
        }
        return EngineStatus(
            registered=self._registration.is_registered(now),
            servers=self._servers.status(now),
            peers=described(now, self._plane.data, self._settings),
            counters=counters,
        )

    # --------------------------------------------------------------------------------- messages

    def _message(
        self, now: float, name: str, message: MapReply | MapNotify, data: bytes
    ) -> list[Action]:
        self._heard(now, name)
        if isinstance(message, MapReply):
            return self._reply(now, name, message)
        return self._notify(now, name, message, data)

    def _heard(self, now: float, name: str) -> None:
        in_doubt = self._servers.get(name).heard is None or self._servers.is_silent(now, name)
        was_alone = in_doubt and not self._servers.is_any_there(now)
        regained = self._servers.heard(now, name)
        self._control.heard(now, self._servers.get(name))
        if regained:
            # It may have lost who asked for what, and we its pushes.
            self.counters.add("server.regained")
            self._renewals.lost(now, frozenset({name}))
            self._server_set.lost(now, name)
        if regained and was_alone:
            self._renewals.all_soon(now)
            # All were gone: it may be another cluster, made from a backup, that knows us as we
            # were then.
            self._registration.repeat_soon(now)
        if regained:
            self._renewals.unconfirmed_now(now)

    def _reply(self, now: float, name: str, reply: MapReply) -> list[Action]:
        if self._servers.probe_answered(now, name, reply.nonce):
            return []
        if self._traces.reply(now, name, reply):
            return []
        if self._server_set.is_about(reply.records):
            self._server_set.noted(name)
        answer = self._requests.reply(now, name, reply)
        return [] if answer is None else self._answered(now, answer)

    def _answered(self, now: float, answer: Answer) -> list[Action]:
        if answer.target == self._identity.control_prefix:
            return self._saved(self._server_set.answered(now, answer))
        self._resolutions.answered(answer)
        actions = self._intake.answer(now, answer)
        self._renewals.answered(now, answer)
        return actions

    def _notify(self, now: float, name: str, notify: MapNotify, data: bytes) -> list[Action]:
        if self._traces.notify(name, notify):
            return []
        own = self._answers_register(notify)
        if own:
            actions = self._registration.notify(now, name, notify)
            if actions is not None:
                self._announce(now)
                return actions
        elif not self._watch.adopted:
            # A former run's peers are not known yet: a new key of one would drop what still works.
            # What finds no room is told again, for it is not acknowledged.
            if len(self._put_off) < MAX_PUT_OFF:
                self._put_off.append((name, notify, data))
            return []
        self.counters.add("push.received")
        if self._server_set.is_about(notify.records):
            self._server_set.noted(name)
            actions = self._saved(self._server_set.pushed(now, notify.records))
        else:
            actions = self._intake.push(now, notify.records)
            self._renewals.pushed(name, notify.records)
        if notify.xtr is not None and not own:  # the answer to a register repeats our own mark
            self._told(now, name, Mark.of(notify.xtr))
        if self._servers.revocations.take_unsaved():
            actions.append(Save(self._registration.saved()))
        ack = Send(name, self._acknowledgement(name, notify, data))
        if notify.xtr is not None or not any(map(_sets_data_peer, actions)):
            return [*actions, ack]
        # A first packet may be on its way to us: what it waits for has the processor first.
        self._later.add(now + self._settings.acknowledge_s, ack)
        return actions

    def _early(self, now: float) -> list[Action]:
        """Take in the pushes that came before the data device was read for the first time."""
        put_off, self._put_off = self._put_off, []
        known = (one for one in put_off if self._servers.knows(one[0]))
        return [action for one in known for action in self._notify(now, *one)]

    def _acknowledgement(self, name: str, notify: MapNotify, data: bytes) -> bytes:
        """Make a Map-Notify-Ack; to news it says what is known now, so that more can follow."""
        ack = codec.acknowledgement(data)
        return ack if notify.xtr is None else marked(ack, self._servers.mark(name))

    def _announce(self, now: float) -> None:
        """Ask for every peer once a new key is acknowledged: our question tells it of the key."""
        if self._announced is not None and self._registration.is_registered(now):
            self._plane.use_key(self._announced)
            self._announced = None
            self._renewals.all_soon(now)

    def _answers_register(self, notify: MapNotify) -> bool:
        """Tell the answer to a register from a push.

        It is about our own prefixes, or, where a newer register stands that was made with other
        ones (or with none that is left), it has the mark of a register. News have their own mark,
        and a random nonce: taken for a register's that would be our counter from then on.
        """
        if notify.xtr is not None and Mark.of(notify.xtr).since == OF_REGISTER:
            return True
        revokes = any(one.key_revoked for record in notify.records for one in record.locators)
        is_own = self._plane.reader.is_own
        return bool(notify.records) and all(map(is_own, notify.records)) and not revokes

    def _saved(self, actions: list[Action]) -> list[Action]:
        """Have what must be on disk saved beside what is to be done, if anything is."""
        return [*actions, Save(self._registration.saved())] if actions else []

    def _told(self, now: float, name: str, mark: Mark) -> None:
        """Take in what a server says of itself, and up to which number it told revocations."""
        if self._servers.told(name, mark.incarnation):
            # Its responder is a new one: who asked for what died with the former.
            self.counters.add("server.new_incarnation")
            self._renewals.lost(now, frozenset({name}))
            self._server_set.lost(now, name)
        before = self._servers.revocations.number
        self._servers.revocations.told(mark)
        if len(self._cache) and self._servers.revocations.number != before:
            self._cache.changed(now)

    # ------------------------------------------------------------------------------------ timers

    def _probe_servers(self, now: float) -> list[Action]:
        """Ask servers that were not heard for long: for our own prefix, which any can answer."""
        actions: list[Action] = []
        for server in self._servers.due_probes(now):
            self._servers.sent(now, server.info.name, quick=True)
            self.counters.add("server.probed")
            probe = marked(
                self._probe(server.probe_nonce or 0), self._servers.mark(server.info.name)
            )
            actions.append(Send(server.info.name, probe))
        return actions

    def _probe(self, nonce: int) -> bytes:
        return self._questions.write(self._identity.prefixes[0], nonce)

    def _set_underlay(self, underlay: tuple[IPAddress, ...]) -> None:
        self._underlay = underlay
        self._plane.families = frozenset(address.version for address in underlay)

    def _move(self, now: float, *, changed: bool) -> list[Action]:
        """Cure the stale source address, and where the addresses changed tell everybody."""
        self._move_at, self._move_changed = None, False
        control, data = RefreshEndpoints(Tunnel.CONTROL), RefreshEndpoints(Tunnel.DATA)
        if not changed:
            return [control, data]
        self.counters.add("moves")
        self._control.moved(now)
        actions: list[Action] = [control, *self._registration.change(now, self._underlay)]
        # Every server learns our new address from it, for its pushes; and it shows which is dead.
        self._servers.probe_soon(now)
        actions += self._probe_servers(now)
        active = self._active(now)
        for peer in active:
            peer.recovery = self._plane.moves.own_move(now, len(active))
            self._plane.data.unsettle(peer)
        return [*actions, data, *self._plane.poke(*active)]

    def _active(self, now: float) -> list[Peer]:
        since = now - self._settings.standing_s
        peers = self._plane.data.peers.values()
        return [peer for peer in peers if peer.phase is Phase.UP and peer.activity.data_at > since]


def _sets_data_peer(action: Action) -> bool:
    return isinstance(action, ConfigurePeers) and action.tunnel is Tunnel.DATA
