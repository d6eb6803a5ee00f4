"""Operators: enrol, revoke and back up, each on any server, again where one did not answer."""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

from wgmap.clock import now
from wgmap.errors import UnavailableError, WgmapError
from wgmap_chaos.faults.site import Site
from wgmap_chaos.history.records import Call, Op, Outcome
from wgmap_chaos.load import place
from wgmap_chaos.load.fleet import Fleet, identity
from wgmap_chaos.load.light import Light
from wgmap_cluster.cli.client import REVOKE_TIMEOUT_S, Client

TRIES = 8
PAUSE_S = 1.0
BACKUP_S = 60.0
KEEP = 4  # lights that are left at least beside those that ask


class Operators:
    """Does one thing after another at a rate."""

    def __init__(
        self,
        site: Site,
        fleet: Fleet,
        light: Callable[[int], Light],
        rng: Random,
        record: Callable[[Call], None],
    ) -> None:
        """``light`` makes the client with a number."""
        self._site, self._fleet, self._light = site, fleet, light
        self._rng, self._record = rng, record
        self._next = len(fleet.lights)
        self._stopped = asyncio.Event()

    async def run(self, rate: float) -> None:
        """Go on until stopped."""
        works = (self._enrol, self._enrol, self._revoke, self._back_up)
        while not self._stopped.is_set() and rate > 0:
            await asyncio.sleep(self._rng.expovariate(rate))
            await self._rng.choice(works)()

    def stop(self) -> None:
        """Finish what is being done, and no more."""
        self._stopped.set()

    async def _enrol(self) -> None:
        who = identity(self._next)
        light = self._light(self._next)
        self._next += 1
        body = place.enrolment(light.identity)
        outcome = await self._do(Op.ENROL, who.name, lambda client: client.post("/v1/peers", body))
        if outcome is Outcome.OK:
            self._fleet.add(light)
        else:
            light.close()

    async def _revoke(self) -> None:
        chosen = self._fleet.silent
        if len(chosen) < KEEP:
            return
        light = self._rng.choice(chosen)
        path = f"/v1/peers/{light.identity.name}/revoke"
        self._fleet.retire(light)
        await self._do(
            Op.REVOKE,
            light.identity.name,
            lambda client: client.post(path, timeout_s=REVOKE_TIMEOUT_S),
        )

    async def _back_up(self) -> None:
        def read(client: Client) -> int:
            return sum(map(len, client.receive("/v1/backup", BACKUP_S)))

        await self._do(Op.BACKUP, "", read)

    async def _do(self, op: Op, key: str, work: Callable[[Client], Any]) -> Outcome:
        """Try on one server after the other until it is done or certainly refused."""
        begun, outcome, error, name = now(), Outcome.UNKNOWN, "", ""
        for _ in range(TRIES):
            name = self._rng.choice(self._site.servers)
            path = self._site.server(name).admin_socket
            try:
                await asyncio.to_thread(work, Client(path))
                outcome, error = Outcome.OK, ""
                break
            except UnavailableError as failure:
                error = str(failure)
            except WgmapError as failure:
                outcome, error = Outcome.FAIL, str(failure)
                break
            await asyncio.sleep(PAUSE_S)
        ended = None if outcome is Outcome.UNKNOWN else now()
        told = {"outcome": outcome, "begun": begun, "ended": ended, "server": name, "error": error}
        self._record(Call.model_validate({"who": "operator", "op": op, "key": key, **told}))
        return outcome
