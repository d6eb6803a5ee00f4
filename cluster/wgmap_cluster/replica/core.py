"""What most parts of the replica share."""

from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from wgmap_cluster.fsm.machine import Machine
from wgmap_cluster.raft.interface import ReplicatedLog
from wgmap_cluster.replica.proposing import Proposer


class Counters(Counter[str]):
    """Names to numbers that only rise, for status and metrics."""

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter."""
        self[name] += by


@dataclass(frozen=True, slots=True)
class Core:
    """The state machine, the log that drives it, its only way in, and where tasks and counts go.

    A task that fails ends the replica: its supervisor starts it anew from the log.
    """

    machine: Machine
    log: ReplicatedLog
    proposer: Proposer
    spawn: Callable[[Coroutine[Any, Any, None]], object]
    counters: Counters = field(default_factory=Counters)
