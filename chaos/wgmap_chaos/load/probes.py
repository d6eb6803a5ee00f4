"""Clients for the gaps alone: a process of their own, raised over others, that calls by the clock.

What the load is answered says little about how long nothing worked: its calls come by chance, and
its process is busy. Here each kind of call is begun at fixed intervals, one waits for the next one
never, and a call that was begun late is told (``Late``). Two clients ask about some that registered
once, many others register in turns, so that nobody has to be told of anything.

The process prints who is to be enrolled, and is told the map servers each time that they change.
"""

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from ipaddress import IPv6Address
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from wgmap.addresses import IPAddress
from wgmap.clock import now
from wgmap.wg.keys import PublicKey
from wgmap_chaos.history.file import Recorder
from wgmap_chaos.history.records import Call, Late, Op, Record
from wgmap_chaos.lab.errors import LabError
from wgmap_chaos.load import part, place
from wgmap_chaos.load.fleet import FIRST_EID, FIRST_PLACE
from wgmap_chaos.load.light import Identity, Light
from wgmap_chaos.load.tunnel import ServerPlace

ASKERS, ASKED, REGISTRARS = 2, 8, 40
OFFSET = 1 << 14  # of their EIDs to those of the other light clients
HEDGE_S = 0.05  # as impatient as an agent, roughly
LATE_S = 0.02  # less is not told
WARM_TRIES = 20


class Plan(NamedTuple):
    """What the process is to do."""

    netns: str
    out: str  # where its history goes
    rate: float  # calls of each kind, a second
    seed: int


class Probes:
    """The process, as a run sees it."""

    def __init__(self, running: part.Part, path: Path) -> None:
        """Use ``start``."""
        self._part, self.path = running, path

    @classmethod
    async def start(cls, plan: Plan) -> tuple["Probes", list[dict[str, object]]]:
        """Start it; return it and whom to enrol. Raises LabError."""
        running, peers = await part.Part.start(__name__, plan)
        return cls(running, Path(plan.out)), peers

    def know(self, servers: Iterable[ServerPlace]) -> None:
        """Tell it who the map servers are; it works from the first time on."""
        self._part.say(
            [[one.name, *one.endpoint, str(one.key), str(one.control)] for one in servers]
        )

    async def end(self) -> None:
        """End it; its history is complete then. Raises LabError."""
        await self._part.end()


# ------------------------------------------------------------------------------- in the process


def identities() -> list[Identity]:
    """Return who they are, with new keys: those who ask, who are asked about, who register."""
    return [
        Identity(f"p{number}", FIRST_EID + OFFSET + number, FIRST_PLACE + number % 200)
        for number in range(ASKERS + ASKED + REGISTRARS)
    ]


class Metronome:
    """Begins calls at fixed intervals."""

    def __init__(self, record: Callable[[Record], None]) -> None:
        self._record = record
        self._out: set[asyncio.Task[None]] = set()
        self.stopped = asyncio.Event()

    async def run(
        self, op: Op, rate: float, calls: Iterable[Callable[[], Awaitable[Call]]]
    ) -> None:
        """Begin one call after the other until stopped, then wait for their ends."""
        due = now()
        for call in calls:
            due += 1 / rate
            await asyncio.sleep(max(0.0, due - now()))
            if self.stopped.is_set():
                break
            if (late := now() - due) > LATE_S:
                self._record(Late(who=f"probe of {op}", at=due, by_s=late))
            task = asyncio.create_task(self._work(call))
            self._out.add(task)
            task.add_done_callback(self._out.discard)
        await asyncio.gather(*self._out)

    async def _work(self, call: Callable[[], Awaitable[Call]]) -> None:
        self._record(await call())


async def work(plan: Plan, record: Callable[[Record], None]) -> None:
    """Do all that the process does."""
    lines = await part.told()
    everybody = identities()
    part.answer([place.enrolment(one) for one in everybody])
    if not (line := await lines.readline()):
        return  # the run broke off before it began
    servers = _servers(line)
    rng = Random(plan.seed)  # noqa: S311  # to be repeated
    lights = [Light(one, plan.netns, servers, rng, record, HEDGE_S) for one in everybody]
    askers, asked = lights[:ASKERS], lights[ASKERS : ASKERS + ASKED]
    await _warm(asked, record)
    metronome = Metronome(record)
    eids = itertools.cycle([one.identity.eid for one in asked])
    registrars = itertools.cycle(lights[ASKERS + ASKED :])
    async with asyncio.TaskGroup() as tasks:
        for op in (Op.LOOKUP, Op.REFRESH):
            tasks.create_task(metronome.run(op, plan.rate, _questions(askers, eids, op)))
        registers = (one.register for one in registrars)
        tasks.create_task(metronome.run(Op.REGISTER, plan.rate, registers))
        while line := await lines.readline():
            for light in lights:
                light.know(_servers(line))
        metronome.stopped.set()


def _questions(
    askers: Sequence[Light], eids: Iterable[IPAddress], op: Op
) -> Iterable[Callable[[], Awaitable[Call]]]:
    for asker, eid in zip(itertools.cycle(askers), eids, strict=False):
        yield partial(asker.ask, eid, op)


async def _warm(asked: Sequence[Light], record: Callable[[Record], None]) -> None:
    """Have those who are asked about registered; raises LabError."""
    for light in asked:
        for _ in range(WARM_TRIES):
            call = await light.register()
            record(call)
            if call.result:
                break
        else:
            raise LabError(f"{light.identity.name} cannot register")


def _servers(line: bytes) -> list[ServerPlace]:
    told: list[Any] = json.loads(line)
    return [
        ServerPlace(name, (host, port), PublicKey.parse(key), IPv6Address(control))
        for name, host, port, key, control in told
    ]


def main() -> None:
    """Run the process."""
    plan = Plan(*part.begin())
    with Recorder(Path(plan.out)) as recorder:
        asyncio.run(work(plan, recorder.add))


if __name__ == "__main__":
    main()
