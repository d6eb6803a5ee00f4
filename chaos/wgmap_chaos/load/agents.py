"""Load of real agents: keys that rotate, and first contacts."""

import asyncio
import itertools
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

from wgmap.clock import now
from wgmap.errors import ConflictError, WgmapError
from wgmap_agent.runner.keys import NEXT_KEY
from wgmap_agent.runner.statussocket import request
from wgmap_chaos.contacts.contact import first_answer_ms, forget
from wgmap_chaos.faults.site import Site
from wgmap_chaos.history import records
from wgmap_chaos.load.flows import pairs

ROTATION_S = 60.0  # where a peer is dead the agent waits for it for ten minutes
POLL_S = 0.1


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
