"""A server's page for Prometheus, ``wgmap_server_...``, and whether it is ready.

The replica serves both. While it is started anew nobody does, and that is the truth: within the
staleness bound the responder's answers lose their authority.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.core import Metric

from wgmap import __version__
from wgmap.metrics.families import Histogram, counted, gauge, unflat
from wgmap.metrics.listener import Health
from wgmap_cluster.fsm.state import Counts, InstanceCounts
from wgmap_cluster.replica import catalogue
from wgmap_cluster.replica.views import CountersView, no_counters

PREFIX = "wgmap_server"
LOOKUP = "lookup"  # the names of the responder's histograms,
INTRODUCTION = "introduction"
SYNC = "sync"  # and of the log's


# Those with the most peers have series of their own.
MOST_INSTANCES = 256
NOTHING = Counts(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a server is and has counted at one moment."""

    fresh: bool = False
    lease_left_s: float = 0.0
    leader: str | None = None
    restoring: bool = False
    counts: Counts = NOTHING
    instances: Mapping[int, InstanceCounts] = field(default_factory=dict)
    control_tunnels: int | None = None  # with a recent handshake; None: not known
    responding: int = 0  # responders that have everything and say so
    counters: CountersView = field(default_factory=no_counters)
    registers: Histogram = field(default_factory=Histogram)

    def ready(self) -> Health:
        """Say whether this server answers with authority, and would take a register."""
        return Health(
            {
                "leader": self.leader is not None,
                "lease": self.fresh,
                "responder": self.responding > 0,
                "not_restoring": not self.restoring,
            }
        )


def families(seen: Seen) -> Iterator[Metric]:
    """Return all families."""
    responders = _sum(seen.counters["responders"])
    log = seen.counters["log"]
    yield gauge(f"{PREFIX}_build_info", "Its version.", {__version__: 1}, "version")
    yield gauge(f"{PREFIX}_ready", "1: /health/ready says so.", float(seen.ready().well))
    yield gauge(f"{PREFIX}_fresh", "1: its lease holds: answers have authority.", float(seen.fresh))
    yield gauge(f"{PREFIX}_lease_left_seconds", "How long its lease holds.", seen.lease_left_s)
    has_leader = float(seen.leader is not None)
    yield gauge(f"{PREFIX}_has_leader", "1: it knows who leads.", has_leader)
    yield gauge(f"{PREFIX}_peers", "Enrolled peers that are not revoked.", seen.counts.peers)
    yield gauge(f"{PREFIX}_peers_revoked", "Revoked peers.", seen.counts.revoked)
    yield gauge(f"{PREFIX}_mappings", "Mappings.", seen.counts.mappings)
    for what, text in (  # "instance" is what Prometheus calls the server
        ("peers", "Enrolled peers that are not revoked, by Instance-ID."),
        ("mappings", "Mappings, by Instance-ID."),
    ):
        sizes = {str(one): getattr(counts, what) for one, counts in seen.instances.items()}
        yield gauge(f"{PREFIX}_instance_{what}", text, sizes, "instance_id")
    yield gauge(
        f"{PREFIX}_control_tunnels",
        "Control tunnels to agents with a handshake of late.",
        seen.control_tunnels,
    )
    yield gauge(f"{PREFIX}_responders", "Responders that have everything.", seen.responding)
    yield unflat(
        f"{PREFIX}_lookup_seconds",
        "From a Map-Request's reading off the socket to its answer.",
        *(LOOKUP, responders),
    )
    yield unflat(
        f"{PREFIX}_introduction_seconds",
        "From an answer about a peer to its acknowledgement that it was told who asked.",
        *(INTRODUCTION, responders),
    )
    yield seen.registers.family(
        f"{PREFIX}_register_seconds",
        "From a Map-Register's coming to the replica to its acknowledgement.",
    )
    yield unflat(f"{PREFIX}_log_sync_seconds", "How long syncs of the log to disk took.", SYNC, log)
    yield from counted(f"{PREFIX}_responder", catalogue.RESPONDER, responders)
    yield from counted(f"{PREFIX}_replica", catalogue.REPLICA, seen.counters["replica"])
    yield from counted(f"{PREFIX}_log", catalogue.LOG, log)


def _sum(responders: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Add up; one that is started anew counts from 0, which Prometheus knows how to read."""
    total: Counter[str] = Counter()
    for one in responders:
        total.update(one)
    return dict(total)
