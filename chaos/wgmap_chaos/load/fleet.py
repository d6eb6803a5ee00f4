"""A fleet of light clients that register, look up and refresh at given rates."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from random import Random
from typing import Any

from wgmap.clock import now
from wgmap_chaos.history.records import Call, Op
from wgmap_chaos.load.light import Identity, Light

FIRST_EID = IPv4Address("10.66.128.0")  # above those of the lab's agents
FIRST_PLACE = IPv4Address("192.0.2.11")  # nobody sends there: nobody has a tunnel to a light one
HOT = 8  # so many of them get half of everything: many calls at once about one EID
HOT_SHARE = 0.5
RETIRED_SHARE = 0.1  # of what is asked is about clients that are being revoked, or were
MOST_OUT = 2000  # calls that wait; beyond that the fleet asks less than it should, and says so


@dataclass(frozen=True, slots=True)
class Rates:
    """Calls a second of the whole fleet, and how many of it ask."""

    registers: float
    lookups: float
    refreshes: float
    askers: int  # so many clients ask; whoever asked is told of every change for an hour


def identity(number: int) -> Identity:
    """Return a new light client's identity; EIDs and names are not used twice in a run."""
    return Identity(f"l{number}", FIRST_EID + number, FIRST_PLACE + number % 200)


class Fleet:
    """The clients; each call is handed to ``record`` when it is over."""

    def __init__(self, rates: Rates, rng: Random, record: Callable[[Call], None]) -> None:
        self._rates, self._rng, self._record = rates, rng, record
        self.lights: list[Light] = []
        self.retired: list[Light] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()
        self.held_back = 0

    def add(self, light: Light) -> None:
        """Let a client take part."""
        self.lights.append(light)

    @property
    def silent(self) -> list[Light]:
        """Those that never ask."""
        return self.lights[self._rates.askers :]

    def retire(self, light: Light) -> None:
        """Let it be asked for, and try to register, but ask nothing itself any more."""
        self.lights.remove(light)
        self.retired.append(light)

    async def run(self) -> None:
        """Go on until stopped, then wait for what is out."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._each(self._rates.registers, self._register))
            tasks.create_task(self._each(self._rates.lookups, self._lookup))
            tasks.create_task(self._each(self._rates.refreshes, self._refresh))
        await asyncio.gather(*self._tasks)

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopped.set()

    async def _each(self, rate: float, call: Callable[[], Coroutine[Any, Any, Call]]) -> None:
        due = now()
        while not self._stopped.is_set() and rate > 0:
            due = max(due + self._rng.expovariate(rate), now() - 1.0)
            await asyncio.sleep(max(0.0, due - now()))
            if len(self._tasks) < MOST_OUT:
                self._start(call())
            else:
                self.held_back += 1

    def _start(self, call: Coroutine[Any, Any, Call]) -> None:
        async def work() -> None:
            self._record(await call)

        task = asyncio.create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _register(self) -> Call:
        return await self._target().register()

    async def _lookup(self) -> Call:
        return await self._ask(Op.LOOKUP)

    async def _refresh(self) -> Call:
        return await self._ask(Op.REFRESH)

    async def _ask(self, op: Op) -> Call:
        target = self._target().identity.eid
        return await self._rng.choice(self.lights[: self._rates.askers]).ask(target, op)

    def _target(self) -> Light:
        if self.retired and self._rng.random() < RETIRED_SHARE:
            return self._rng.choice(self.retired)
        return self._one(self.lights)

    def _one(self, lights: Sequence[Light]) -> Light:
        if self._rng.random() < HOT_SHARE:
            lights = lights[:HOT]
        return self._rng.choice(lights)
