"""The names of all metrics that daemons show, as their own code makes them."""

from collections.abc import Iterable

from prometheus_client.core import Metric

from wgmap.metrics.families import Histogram
from wgmap_agent.engine.types import EngineStatus
from wgmap_agent.runner import measures as agent
from wgmap_cluster.replica import measures as server


def agent_names() -> set[str]:
    """Return the names of an agent's metrics."""
    state = EngineStatus(registered=False, servers=(), peers=(), counters={})
    return _names(agent.families(state, Histogram(), {}))


def server_names() -> set[str]:
    """Return the names of a server's metrics."""
    return _names(server.families(server.Seen()))


def _names(families: Iterable[Metric]) -> set[str]:
    return {one.name + ("_total" if one.type == "counter" else "") for one in families}
