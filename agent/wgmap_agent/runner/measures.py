"""The agent's page for Prometheus: ``wgmap_agent_...``."""

from collections import Counter
from collections.abc import Callable, Iterable

from prometheus_client.core import Metric

from wgmap import __version__, clock
from wgmap.metrics import counted, gauge
from wgmap_agent.engine.engine import Engine
from wgmap_agent.runner.contacts import Contacts

PREFIX = "wgmap_agent"
PEER_STATES = ("pending", "up", "silent", "idle")


class Measures:
    """Collects what there is to show at the time of asking."""

    def __init__(
        self, engine: Engine, contacts: Contacts, counters: Callable[[], dict[str, int]]
    ) -> None:
        """``counters``: those of the runner."""
        self._engine = engine
        self._contacts = contacts
        self._counters = counters

    def __call__(self) -> Iterable[Metric]:
        """Return all families."""
        state = self._engine.status(clock.now())
        servers = state.servers
        states = Counter(peer.state for peer in state.peers)
        yield gauge(f"{PREFIX}_build_info", "Its version.", {__version__: 1}, "version")
        yield gauge(
            f"{PREFIX}_registered", "1: its mapping is acknowledged.", float(state.registered)
        )
        yield gauge(
            f"{PREFIX}_peers", "Data peers.", {one: states[one] for one in PEER_STATES}, "state"
        )
        yield gauge(
            f"{PREFIX}_server_round_trip_seconds",
            "Smoothed round trip to a map server.",
            {one.name: None if one.rtt_ms is None else one.rtt_ms / 1e3 for one in servers},
            "server",
        )
        yield gauge(
            f"{PREFIX}_server_silence_seconds",
            "How long ago a map server was heard.",
            {one.name: one.last_heard_s for one in servers},
            "server",
        )
        yield gauge(
            f"{PREFIX}_server_preferred",
            "1: it is asked first.",
            {one.name: float(one.preferred) for one in servers},
            "server",
        )
        yield self._contacts.took.family(
            f"{PREFIX}_first_contact_seconds",
            "From the first packet to a stranger to the handshake that stands.",
        )
        yield from counted(PREFIX, {**state.counters, **self._counters()})
