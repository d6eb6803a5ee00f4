"""One run: a cluster, its clients, faults, and the verdict."""

import asyncio
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

from wgmap import clock
from wgmap_chaos.lab import interruption
from wgmap_chaos.lab.interruption import interruptible
from wgmap_chaos.logchaos.cluster import cluster
from wgmap_chaos.logchaos.faults import Faults
from wgmap_chaos.logchaos.judge import Verdict, judge
from wgmap_chaos.logchaos.network import Network, network
from wgmap_chaos.logchaos.workload import Workload


@dataclass(frozen=True, slots=True)
class Report:
    """What happened in a run."""

    servers: int
    seed: int
    seconds: float
    plant: str
    writes: dict[str, int]  # by outcome
    reads: int
    reads_refused: int
    terms: int  # elections that somebody won, at most
    faults: dict[str, int]
    verdict: Verdict

    def data(self) -> dict[str, Any]:
        """Return it as plain data, for JSON."""
        return {**asdict(self), "broken": self.verdict.broken}

    def text(self) -> str:
        """Return it in a few lines, for people."""
        verdict = asdict(self.verdict)
        examples = verdict.pop("examples")
        lines = [
            f"{self.servers} servers, seed {self.seed}, {self.seconds:.0f} s, term {self.terms}",
            f"writes: {_list(self.writes)}",
            f"reads: {self.reads} confirmed, {self.reads_refused} refused",
            f"faults, each took effect and was healed: {sum(self.faults.values())}"
            f" ({_list(self.faults)})",
            f"broken promises: {self.verdict.broken} ({_list(verdict)})",
        ]
        return "\n".join([*lines, *examples])


def run(servers: int, seed: int, seconds: float, plant: str = "none") -> Report:
    """Run once; raises LabError where the run itself fails, or a signal ends it."""
    with (
        interruptible(),
        network(servers) as made,
        tempfile.TemporaryDirectory(prefix="wgmap-log-") as base,
    ):
        return interruption.run(_run(made, Path(base), seed, seconds, plant))


async def _run(made: Network, base: Path, seed: int, seconds: float, plant: str) -> Report:
    begun = clock.now()
    async with cluster(made, base, plant) as servers:
        workload = Workload(servers, Random(f"clients {seed}"))  # noqa: S311  # to be repeated
        faults = Faults(servers, Random(f"faults {seed}"))  # noqa: S311
        async with _load(workload):
            await faults.run(seconds)
        await servers.await_agreement(settled=True)
        await workload.gather()
        look = await servers.look(servers.servers[0])
    history = workload.history
    return Report(
        *(len(made.numbers), seed, clock.now() - begun, plant),
        writes=dict(Counter(write.outcome for write in history.writes)),
        reads=len(history.reads),
        reads_refused=workload.refused,
        terms=look["term"] if look else 0,
        faults=dict(sorted(faults.done.items())),
        verdict=judge(history),
    )


@asynccontextmanager
async def _load(workload: Workload) -> AsyncIterator[None]:
    """Have the clients work meanwhile."""
    clients = asyncio.create_task(workload.run())
    try:
        yield
    finally:
        workload.stop()
        await clients


def _list(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counts.items())
