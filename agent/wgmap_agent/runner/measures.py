"""The agent's page for Prometheus, ``wgmap_agent_...``, and whether it is ready."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.core import Metric

from wgmap import __version__, clock
from wgmap.metrics.families import Histogram, counted, gauge
from wgmap.metrics.listener import Health
from wgmap_agent.engine.engine import Engine
from wgmap_agent.engine.types import EngineStatus
from wgmap_agent.runner.catalogue import COUNTERS
from wgmap_agent.runner.contacts import Contacts

PREFIX = "wgmap_agent"
# Servers are probed more often than this, whatever else is asked of them.
HEARD_S = 30.0
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
        return families(self._engine.status(clock.now()), self._contacts.took, self._counters())

    def ready(self) -> Health:
        """Say whether others can reach this host, and it others it does not know yet.

        Established tunnels need neither, and go on.
        """
        state = self._engine.status(clock.now())
        heard = (one.last_heard_s for one in state.servers if one.last_heard_s is not None)
        return Health(
            {"registered": state.registered, "map_server": min(heard, default=HEARD_S) < HEARD_S}
        )


def families(
    state: EngineStatus, contacts: Histogram, counters: Mapping[str, int]
) -> Iterator[Metric]:
    """Show what an agent is and counted; ``counters``: those of the runner."""
    servers = state.servers
    states = Counter(peer.state for peer in state.peers)
    yield gauge(f"{PREFIX}_build_info", "Its version.", {__version__: 1}, "version")
    yield gauge(f"{PREFIX}_registered", "1: its mapping is acknowledged.", float(state.registered))
    yield gauge(
        *(f"{PREFIX}_peers", "Data peers (tunnels to other agents)."),
        {one: states[one] for one in PEER_STATES},
        "state",
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
    yield contacts.family(
        f"{PREFIX}_first_contact_seconds",
        "From the first packet to a stranger to the handshake that stands.",
    )
    yield from counted(PREFIX, COUNTERS, {**state.counters, **counters})
