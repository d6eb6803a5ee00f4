"""Load of real agents: data flows that go on all the time, and first contacts."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

from wgmap.clock import now
from wgmap.errors import ConflictError, WgmapError
from wgmap_agent.runner.keys import NEXT_KEY
from wgmap_agent.runner.statussocket import request
from wgmap_chaos import flow
from wgmap_chaos.contacts.contact import first_answer_ms, forget
from wgmap_chaos.faults.site import Site
from wgmap_chaos.history import records

GAP_S = 0.5  # shorter silences are not noted
FLOW_PORT = 7007
ROTATION_S = 60.0  # where a peer is dead the agent waits for it for ten minutes
POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Pair:
    """Two agents with a flow; ``family``: which of the target's EIDs."""

    source: str
    target: str
    family: int

    @property
    def name(self) -> str:
        """The flow's name."""
        return f"{self.source}>{self.target} IPv{'46'[self.family]}"


def pairs(agents: list[str]) -> list[Pair]:
    """Return who has flows: each agent and the next, two families in turns."""
    return [Pair(a, b, number % 2) for number, (a, b) in enumerate(itertools.pairwise(agents))][:4]


@asynccontextmanager
async def flows(
    site: Site, rate: float, record: Callable[[records.Record], None]
) -> AsyncIterator[None]:
    """Let packets flow while the block runs, over tunnels that stand before it does."""
    running: list[tuple[Pair, flow.Flow, float]] = []
    async with AsyncExitStack() as stack:
        for number, pair in enumerate(pairs(site.agents)):
            source, target = site.agent(pair.source), site.agent(pair.target)
            await asyncio.to_thread(first_answer_ms, source, target)
            one = flow.Flow(
                source.netns, target.netns, target.eids[pair.family],
                rate=rate, port=FLOW_PORT + number, linger_s=3.0,
            )  # fmt: skip
            running.append((pair, await stack.enter_async_context(one), now()))
        yield
    for pair, one, begun in running:
        record(_recorded(pair, one.record, begun))


def _recorded(pair: Pair, heard: flow.FlowRecord, begun: float) -> records.Flow:
    lost = tuple(at for number, at in enumerate(heard.sent) if number not in heard.returned)
    arrivals = sorted(heard.returned.values())
    gaps = tuple((a, b) for a, b in itertools.pairwise(arrivals) if b - a > GAP_S)
    return records.Flow(
        name=pair.name, source=pair.source, target=pair.target, begun=begun,
        ended=heard.sent[-1] if heard.sent else begun, interval_s=heard.interval_s,
        sent=len(heard.sent), lost=lost, gaps=gaps,
    )  # fmt: skip


class Rotations:
    """Replaces the data key of one agent after the other."""

    def __init__(self, site: Site, rng: Random, record: Callable[[records.Record], None]) -> None:
        self._site, self._rng, self._record = site, rng, record
        self._stopped = asyncio.Event()

    async def run(self, rate: float) -> None:
        """Go on until stopped."""
        while not self._stopped.is_set() and rate > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._rng.expovariate(rate)):
                    await self._stopped.wait()
                    return
            self._record(await self._rotate(self._rng.choice(self._site.agents)))

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopped.set()

    async def _rotate(self, name: str) -> records.Call:
        agent, begun = self._site.agent(name), now()
        told = {"who": "operator", "op": records.Op.ROTATE, "key": name, "begun": begun}
        try:
            await asyncio.to_thread(request, agent.socket, {"op": "rotate"})
        except ConflictError as error:  # it has not finished the one before
            return records.Call.model_validate(
                {**told, "outcome": records.Outcome.FAIL, "ended": now(), "error": str(error)}
            )
        except WgmapError as error:
            outcome = records.Outcome.UNKNOWN
            return records.Call.model_validate({**told, "outcome": outcome, "error": str(error)})
        ended = await self._over(agent.state_dir / NEXT_KEY)
        outcome = records.Outcome.UNKNOWN if ended is None else records.Outcome.OK
        return records.Call.model_validate({**told, "outcome": outcome, "ended": ended})

    async def _over(self, key: Path) -> float | None:
        """Wait until the new key is the key; None: a peer that cannot be told is waited for."""
        end = now() + ROTATION_S
        while now() < end:
            if not await asyncio.to_thread(key.exists):
                return now()
            await asyncio.sleep(POLL_S)
        return None


class Contacts:
    """Makes strangers of two agents that have no flow, and lets them meet."""

    def __init__(self, site: Site, rng: Random, record: Callable[[records.Record], None]) -> None:
        self._site, self._rng, self._record = site, rng, record
        busy = {frozenset((pair.source, pair.target)) for pair in pairs(site.agents)}
        everybody = itertools.permutations(site.agents, 2)
        self._pairs = [pair for pair in everybody if frozenset(pair) not in busy]
        self._stopped = asyncio.Event()

    async def run(self, rate: float) -> None:
        """Go on until stopped."""
        while not self._stopped.is_set() and rate > 0 and self._pairs:
            await asyncio.sleep(self._rng.expovariate(rate))
            await asyncio.to_thread(self._meet, *self._rng.choice(self._pairs))

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopped.set()

    def _meet(self, source: str, target: str) -> None:
        ends = self._site.agent(source), self._site.agent(target)
        with suppress(WgmapError):  # one of them is dead: strangers they may not be, then
            forget(*ends)
            begun = now()
            took = first_answer_ms(*ends)
            took_s = None if took is None else took / 1e3
            self._record(records.Contact(source=source, target=target, begun=begun, took_s=took_s))
