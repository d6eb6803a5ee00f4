"""Data flows between agents that go on all the time, in a process of their own.

Whoever shares a process with all the rest of the load is late by seconds on a busy machine, and
what is then sent at once to make up for it would be lost in the nearest queue.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from wgmap.clock import now
from wgmap_chaos.contacts.contact import first_answer_ms
from wgmap_chaos.faults.site import Site
from wgmap_chaos.flow import Flow, FlowRecord
from wgmap_chaos.history import file, records
from wgmap_chaos.load import part

GAP_S = 0.5  # shorter silences are not noted
FLOW_PORT = 7007
LINGER_S = 3.0


class Pair(NamedTuple):
    """Two agents with a flow; ``family``: which of the target's EIDs."""

    source: str
    target: str
    family: int

    @property
    def name(self) -> str:
        """The flow's name."""
        return f"{self.source}>{self.target} IPv{'46'[self.family]}"


class Course(NamedTuple):
    """A pair and the way of its packets."""

    pair: Pair
    netns: tuple[str, str]
    destination: str
    port: int


def pairs(agents: list[str]) -> list[Pair]:
    """Return who has flows: each agent and the next, two families in turns."""
    return [Pair(a, b, number % 2) for number, (a, b) in enumerate(itertools.pairwise(agents))][:4]


@asynccontextmanager
async def flows(
    site: Site, rate: float, out: Path, record: Callable[[records.Record], None]
) -> AsyncIterator[None]:
    """Let packets flow while the block runs, over tunnels that stand before it does.

    What became of them is written to ``out`` and recorded at the end. Raises LabError.
    """
    courses = [
        await _opened(site, pair, FLOW_PORT + number)
        for number, pair in enumerate(pairs(site.agents))
    ]
    running, _ = await part.Part.start(__name__, [str(out), rate, courses])
    try:
        yield
    finally:
        await running.end()
    for one in file.records(out):
        record(one)


async def _opened(site: Site, pair: Pair, port: int) -> Course:
    source, target = site.agent(pair.source), site.agent(pair.target)
    await asyncio.to_thread(first_answer_ms, source, target)
    return Course(pair, (source.netns, target.netns), str(target.eids[pair.family]), port)


# ------------------------------------------------------------------------------- in the process


async def work(
    courses: list[Course], rate: float, record: Callable[[records.Record], None]
) -> None:
    """Let packets flow to the end of the input."""
    running: list[tuple[Pair, Flow, float]] = []
    async with AsyncExitStack() as stack:
        lines = await part.told()
        for pair, netns, destination, port in courses:
            to = ip_address(destination)
            one = Flow(*netns, to, rate=rate, port=port, linger_s=LINGER_S)
            running.append((pair, await stack.enter_async_context(one), now()))
        part.answer(len(running))
        await lines.read()
    for pair, one, begun in running:
        record(recorded(pair, one.record, begun))


def recorded(pair: Pair, heard: FlowRecord, begun: float) -> records.Flow:
    """Return what a flow became in a history."""
    lost = tuple(at for number, at in enumerate(heard.sent) if number not in heard.returned)
    arrivals = sorted(heard.returned.values())
    gaps = tuple((a, b) for a, b in itertools.pairwise(arrivals) if b - a > GAP_S)
    return records.Flow(
        name=pair.name, source=pair.source, target=pair.target, begun=begun,
        ended=heard.sent[-1] if heard.sent else begun, interval_s=heard.interval_s,
        sent=len(heard.sent), lost=lost, gaps=gaps,
    )  # fmt: skip


def main() -> None:
    """Run the process."""
    out, rate, told = part.begin()
    courses = [
        Course(Pair(*pair), tuple(netns), destination, port)
        for pair, netns, destination, port in told
    ]
    with file.Recorder(Path(out)) as recorder:
        asyncio.run(work(courses, rate, recorder.add))


if __name__ == "__main__":
    main()
