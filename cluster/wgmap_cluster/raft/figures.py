"""Numbers about one server's log, for its status and for metrics."""

from dataclasses import dataclass, field, fields

from wgmap.metrics.families import FINE_S, Histogram
from wgmap_cluster.raft.interface import Outcome

SLOW_SYNC_S = 0.1


@dataclass(slots=True)
class Figures:
    """Counts since the start of the process; they only rise."""

    syncs: int = 0
    syncs_us: int = 0  # taken by all of them
    syncs_longest_us: int = 0
    syncs_slow: int = 0  # over SLOW_SYNC_S
    elections_asked: int = 0  # questions before an election
    elections_stood: int = 0
    elections_won: int = 0
    leader_changes: int = 0  # another one, or none, was known to lead
    bridged: int = 0  # asked to lead because another server did not hear the leader
    snapshots_written: int = 0
    snapshots_sent: int = 0  # and installed there
    snapshots_installed: int = 0
    proposals_applied: int = 0
    proposals_not_applied: int = 0
    proposals_unknown: int = 0
    reads_confirmed: int = 0
    reads_refused: int = 0
    frames_broken: int = 0  # connections closed for them
    sync: Histogram = field(default_factory=lambda: Histogram(FINE_S))

    def synced(self, took_s: float) -> None:
        """Count a sync of the write-ahead log."""
        took_us = int(took_s * 1e6)
        self.sync.observe(took_s)
        self.syncs += 1
        self.syncs_us += took_us
        self.syncs_longest_us = max(self.syncs_longest_us, took_us)
        self.syncs_slow += took_s > SLOW_SYNC_S

    def ended(self, outcome: Outcome) -> None:
        """Count the end of a proposal that was made on this server."""
        if outcome is Outcome.APPLIED:
            self.proposals_applied += 1
        elif outcome is Outcome.NOT_APPLIED:
            self.proposals_not_applied += 1
        else:
            self.proposals_unknown += 1

    def named(self) -> dict[str, int]:
        """Return them by name; the times of syncs as ``sync.le_us.N``."""
        values = ((one.name, getattr(self, one.name)) for one in fields(self))
        return {name: n for name, n in values if isinstance(n, int)} | self.sync.flat("sync")
