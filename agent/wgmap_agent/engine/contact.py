"""First contact: the flows and their held packets, driven by the table in ``flows``."""

from collections.abc import Iterable

from wgmap.addresses import IPAddress, IPNetwork
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.counters import Counters
from wgmap_agent.engine.flows import Event, Flow, State, Step
from wgmap_agent.engine.holding import Holding
from wgmap_agent.engine.packets import is_within
from wgmap_agent.engine.settings import Settings
from wgmap_agent.engine.types import Action, Inject, Refusal, Refuse


class FirstContact:
    """All destinations in first contact; at most ``max_flows``, each for at most ``hold_s``."""

    def __init__(self, settings: Settings, counters: Counters) -> None:
        self._settings = settings
        self._counters = counters
        self._flows: dict[IPAddress, Flow] = {}  # in the order of their start
        self.holding = Holding(settings, counters)

    def __len__(self) -> int:
        return len(self._flows)

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
        return tuple(flow for flow in self._flows.values() if flow.key == key)

    def open(self, now: float, destination: IPAddress) -> Flow | None:
        """Make a flow; None where there are too many."""
        if len(self._flows) >= self._settings.max_flows:
            self._counters.add("flow.refused_too_many")
            return None
        self._flows[destination] = flow = Flow(destination, now)
        self._counters.add("flow.opened")
        return flow

    def packet(self, flow: Flow, packet: bytes, event: Event) -> list[Action]:
        """Take a packet into a flow.

        One that there is no room for is not sent either: WireGuard stages 128 packets before a
        handshake and drops the oldest of them, which are the ones that must not be lost.
        """
        step = flow.on(event)
        held = self.holding.hold(flow.destination, packet)
        return [Inject((packet,))] if held and step is Step.HOLD_AND_SEND else []

    def on(self, flow: Flow, event: Event, refusal: Refusal = Refusal.UNREACHABLE) -> list[Action]:
        """Let something happen to a flow; returns what becomes of its packets."""
        step = flow.on(event)
        actions = self._do(flow, step, refusal)
        if flow.state is State.GONE:
            self.holding.take(flow.destination)
            self._flows.pop(flow.destination, None)
        return actions

    def all_of(self, key: PublicKey, event: Event) -> list[Action]:
        """Let the same happen to every flow of a peer."""
        return [action for flow in self.of(key) for action in self.on(flow, event)]

    def expire(self, now: float) -> list[Action]:
        """Give up what is held for too long."""
        actions: list[Action] = []
        for flow in self.all():
            if flow.started + self._settings.hold_s > now:
                break  # in the order of their start
            self._counters.add("flow.expired")
            actions += self.on(flow, Event.GAVE_UP)
        return actions

    def deadline(self) -> float | None:
        """Return when ``expire`` has something to do."""
        first = next(iter(self._flows.values()), None)
        return None if first is None else first.started + self._settings.hold_s

    def _do(self, flow: Flow, step: Step, refusal: Refusal) -> list[Action]:
        packets = self.holding.packets(flow.destination)
        if not packets or step in (Step.NOTHING, Step.HOLD):
            return []
        if step in (Step.SEND_COPIES, Step.SEND_ALL):
            return [Inject(packets)]
        if step is Step.REFUSE:
            self._counters.add("held.refused", len(packets))
            told = packets[: self._settings.refusals_per_flow]
            return [Refuse(packet, refusal) for packet in told]
        if step is Step.DROP:
            self._counters.add("held.dropped_too_old", len(packets))
        return []
