"""First contact: the flows and their held packets, driven by the table in ``flows``."""

from collections.abc import Iterable

from wgmap.addresses import IPAddress, IPNetwork
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.counters import Counters
from wgmap_agent.engine.flows import Event, Flow, State, Step
from wgmap_agent.engine.holding import Holding
from wgmap_agent.engine.outlet import Outlet
from wgmap_agent.engine.packets import is_within
from wgmap_agent.engine.settings import Settings
from wgmap_agent.engine.types import Action, Inject, Refusal, Refuse

_ANEW = (Event.KICKED, Event.RELEASED)  # another handshake begins


class FirstContact:
    """All destinations in first contact; at most ``max_flows``, each for at most ``hold_s``."""

    def __init__(self, settings: Settings, counters: Counters) -> None:
        self._settings = settings
        self._counters = counters
        self._flows: dict[IPAddress, Flow] = {}  # in the order of their start
        self._outlets: dict[PublicKey, Outlet] = {}  # of peers with flows
        # Flows of which only copies are left, and until when: they make room for others.
        self._left: dict[IPAddress, float] = {}
        self.holding = Holding(settings, counters)

    def __len__(self) -> int:
        """Count the destinations that something waits for."""
        return len(self._flows) - len(self._left)

    @property
    def held(self) -> int:
        """Count the packets that wait, without copies of what all went out."""
        kept = sum(len(self.holding.packets(destination)) for destination in self._left)
        return self.holding.total - kept

    def get(self, destination: IPAddress) -> Flow | None:
        """Return the flow to a destination."""
        return self._flows.get(destination)

    def all(self) -> tuple[Flow, ...]:
        """Return every flow."""
        return tuple(self._flows.values())

    def within(self, prefixes: Iterable[IPNetwork]) -> tuple[Flow, ...]:
        """Return the flows to destinations in these prefixes."""
        wanted = tuple(prefixes)
        return tuple(f for f in self._flows.values() if is_within(f.destination, wanted))

    def of(self, key: PublicKey) -> tuple[Flow, ...]:
        """Return the flows that wait for this peer's tunnel."""
        outlet = self._outlets.get(key)
        return () if outlet is None else tuple(outlet.flows.values())

    def open(self, now: float, destination: IPAddress) -> Flow | None:
        """Make a flow; None where there are too many."""
        if len(self._flows) >= self._settings.max_flows:
            self._make_room(now)
        if len(self._flows) >= self._settings.max_flows:
            self._counters.add("flow.refused_too_many")
            return None
        self._flows[destination] = flow = Flow(destination, now)
        self._counters.add("flow.opened")
        return flow

    def assign(self, flow: Flow, key: PublicKey) -> None:
        """Let a flow wait for the tunnel of this peer, and of no other any more."""
        self._unassign(flow)
        flow.key = key
        if key not in self._outlets:
            self._outlets[key] = Outlet(self._settings)
        self._outlets[key].flows[flow.destination] = flow

    def packet(self, now: float, flow: Flow, packet: bytes, event: Event) -> list[Action]:
        """Take a packet into a flow.

        One that there is no room for is not sent either: WireGuard stages 128 packets before a
        handshake and drops the oldest of them, which are the ones that must not be lost.
        """
        step = flow.on(event)
        if step is Step.SEND:
            return _inject((packet,))
        while self.holding.is_full and self._left:
            self._make_room(now)
        held = self.holding.hold(flow.destination, packet)
        outlet = None if flow.key is None else self._outlets[flow.key]
        if outlet is None or step is not Step.HOLD_AND_SEND:
            return []
        if not held:
            outlet.overflowed = outlet.opened
            return []
        outlet.add(flow.destination, (packet,))
        return _inject(outlet.take(now))

    def on(
        self, now: float, flow: Flow, event: Event, refusal: Refusal = Refusal.UNREACHABLE
    ) -> list[Action]:
        """Let something happen to a flow; returns what becomes of its packets."""
        step = flow.on(event)
        actions = self._do(now, flow, step, refusal)
        if flow.state is not State.LEFT:
            self._left.pop(flow.destination, None)
        elif flow.destination not in self._left:
            self._left[flow.destination] = now + self._settings.kept_s
        if flow.state is State.GONE:
            self.holding.take(flow.destination)
            self._flows.pop(flow.destination, None)
            self._unassign(flow)
        return actions

    def all_of(self, now: float, key: PublicKey, event: Event) -> list[Action]:
        """Let the same happen to every flow of a peer."""
        outlet = self._outlets.get(key)
        if outlet is None:
            return []
        if event in _ANEW:
            outlet.close()
        if event is Event.STANDS:
            outlet.open(now)
        actions = [action for flow in self.of(key) for action in self.on(now, flow, event)]
        return actions + self._settle(now, outlet)

    def answered(self, now: float, key: PublicKey) -> None:
        """Let portions follow one another for a peer: its handshake is answered."""
        if (outlet := self._outlets.get(key)) is not None:
            outlet.open(now)

    def proved(self, now: float, key: PublicKey) -> list[Action]:
        """Let the copies go for a peer that has shown that it has the session."""
        outlet = self._outlets.get(key)
        if outlet is None:
            return []
        outlet.proved = True
        return self._settle(now, outlet)

    def is_out(self, key: PublicKey) -> bool:
        """Say whether all that is held for a peer was handed over, or no more can be held."""
        outlet = self._outlets.get(key)
        return outlet is None or not len(outlet) or outlet.overflowed

    def portions(self, now: float) -> tuple[list[Action], list[PublicKey]]:
        """Hand over the portions whose time has come; returns the keys of their peers as well."""
        keys = [key for key, one in self._outlets.items() if one.is_due(now)]
        actions: list[Action] = []
        for key in keys:
            outlet = self._outlets[key]
            actions += _inject(outlet.take(now))
            actions += self._settle(now, outlet)
        return actions, keys

    def expire(self, now: float) -> list[Action]:
        """Give up what is held for too long."""
        actions: list[Action] = []
        while self._left and next(iter(self._left.values())) <= now:
            self._make_room(now)
        for flow in self.all():
            if flow.started + self._settings.hold_s > now:
                break  # in the order of their start
            self._counters.add("flow.expired")
            actions += self.on(now, flow, Event.GAVE_UP)
        return actions

    def deadline(self) -> float | None:
        """Return when ``expire`` or ``portions`` has something to do."""
        first = next(iter(self._flows.values()), None)
        if first is None:
            return None
        times = [one.next_at for one in self._outlets.values() if one.next_at is not None]
        left = next(iter(self._left.values()), float("inf"))
        return min([first.started + self._settings.hold_s, left, *times])

    def _do(self, now: float, flow: Flow, step: Step, refusal: Refusal) -> list[Action]:
        packets = self.holding.packets(flow.destination)
        if not packets or step in (Step.NOTHING, Step.HOLD):
            return []
        if step in (Step.SEND_COPIES, Step.SEND_REST):
            return self._send(now, flow, packets if step is Step.SEND_COPIES else ())
        if step is Step.REFUSE:
            self._counters.add("held.refused", len(packets))
            told = packets[: self._settings.refusals_per_flow]
            return [Refuse(packet, refusal) for packet in told]
        if step is Step.DROP:
            self._counters.add("held.dropped_too_old", len(packets))
        return []

    def _send(self, now: float, flow: Flow, anew: tuple[bytes, ...]) -> list[Action]:
        assert flow.key is not None, "a flow is sent to a peer"
        outlet = self._outlets[flow.key]
        if anew:
            outlet.drop(flow.destination)
            outlet.add(flow.destination, anew)
        return _inject(outlet.take(now))

    def _settle(self, now: float, outlet: Outlet) -> list[Action]:
        """End the flows of a peer that stands once all of theirs is out, and came there."""
        if len(outlet):
            return []
        events = (Event.OUT, Event.PROVED) if outlet.proved else (Event.OUT,)
        flows = tuple(outlet.flows.values())
        return [action for flow in flows for one in events for action in self.on(now, flow, one)]

    def _make_room(self, now: float) -> None:
        """Let go of the copies that were kept the longest, if there are any."""
        destination = next(iter(self._left), None)
        if destination is not None:
            self.on(now, self._flows[destination], Event.GAVE_UP)

    def _unassign(self, flow: Flow) -> None:
        outlet = None if flow.key is None else self._outlets.get(flow.key)
        if outlet is None or flow.key is None:
            return
        outlet.drop(flow.destination)
        outlet.flows.pop(flow.destination, None)
        if not outlet.flows:
            del self._outlets[flow.key]


def _inject(packets: tuple[bytes, ...]) -> list[Action]:
    return [Inject(packets)] if packets else []
