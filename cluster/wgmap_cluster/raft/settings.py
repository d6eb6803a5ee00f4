"""Timing and limits of the replicated log."""

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Settings:
    """Seconds, bytes and counts; the same on every server.

    ``fallback_s`` may not exceed ``election_min_s``: a leader that hears no quorum any more steps
    down before servers that only miss it elect another one. (Where connections break, they are
    faster; what it says meanwhile counts for nothing without a quorum.)
    """

    heartbeat_s: float = 0.05
    election_min_s: float = 0.4
    election_max_s: float = 0.8
    fallback_s: float = 0.4
    connect_timeout_s: float = 1.0
    connection_timeout_s: float = 1.5
    retry_s: float = 0.3
    note_interval_s: float = 0.4
    install_timeout_s: float = 30.0  # without progress: an install starts again; the log is cut

    snapshot_entries: int = 50_000  # applied since the last snapshot
    snapshot_bytes: int = 64 * MIB  # size of the write-ahead log
    retain_entries: int = 5_000  # kept behind a snapshot for servers that lag

    batch_bytes: int = 64 * 1024  # of entries in one message
    window_bytes: int = MIB  # sent to one server and not yet taken by it
    chunk_bytes: int = 64 * 1024  # of a snapshot in one message
    apply_batch: int = 2_000  # entries applied in one tick
    pending_limit: int = 16_384  # proposals (and reads) waiting here; more are refused at once
    pending_bytes: int = 64 * MIB  # of commands of proposals waiting here; more are refused
    uncommitted_limit: int = 50_000  # entries a leader holds uncommitted; more are refused
    uncommitted_bytes: int = 64 * MIB  # of their commands

    def __post_init__(self) -> None:
        if not 3 * self.heartbeat_s < self.election_min_s < self.election_max_s:
            msg = "want 3 * heartbeat_s < election_min_s < election_max_s"
            raise ValueError(msg)
        if self.fallback_s > self.election_min_s:
            msg = "fallback_s exceeds election_min_s"
            raise ValueError(msg)
        if self.connection_timeout_s < self.election_max_s:
            msg = "connection_timeout_s is below election_max_s"
            raise ValueError(msg)
