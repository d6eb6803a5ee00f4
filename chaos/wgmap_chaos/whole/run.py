"""One run: a lab comes up, is loaded, broken, healed and judged."""

import asyncio
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from random import Random

from wgmap.clock import now
from wgmap.errors import WgmapError
from wgmap_chaos.faults import catalogue, releases, wallclock
from wgmap_chaos.faults.site import Site
from wgmap_chaos.history import file
from wgmap_chaos.history.records import Run
from wgmap_chaos.lab import commands, interruption, topology
from wgmap_chaos.lab.errors import LabError
from wgmap_chaos.lab.interruption import interruptible
from wgmap_chaos.lab.relay import Quality
from wgmap_chaos.load import agents, flows, place, probes
from wgmap_chaos.load.fleet import Fleet, Rates, identity
from wgmap_chaos.load.light import Light
from wgmap_chaos.load.operators import Operators
from wgmap_chaos.whole import settling
from wgmap_chaos.whole.befalling import Befalling
from wgmap_chaos.whole.scenario import Scenario
from wgmap_chaos.whole.watch import Watch, said

STALENESS_S = 1.0  # the servers' default
OTHER_RELEASE = "other"  # beside the lab's own files
THREADS = 48  # most of them wait for somebody


def run(scenario: Scenario, out: Path, command: str) -> Path:
    """Run once, and write everything below ``out``; return the history's path.

    Raises LabError where the run itself fails, ConfigError for a scenario that is not possible.
    """
    sizes = scenario.run
    catalogue.choose(scenario.faults.kinds, sizes.servers, sizes.agents)  # known before it starts
    out.mkdir(parents=True, exist_ok=True)
    with interruptible(), _lab(out, scenario) as directory:
        netns = place.make(topology.plan(directory, sizes.servers, sizes.agents))
        with file.Recorder(out / file.NAME) as recorder:
            chaos = _Chaos(scenario, directory, netns, recorder)
            try:
                interruption.run(chaos.run(command))
            except ExceptionGroup as group:
                raise _as_one(group) from group
    return out / file.NAME


def _as_one(group: ExceptionGroup) -> Exception:
    """Return what went wrong as one error, if it is of a kind that people can read."""
    readable, others = group.split(WgmapError)
    if readable is None or others is not None:
        return group
    return LabError("; ".join(str(error) for error in _leaves(readable)))


def _leaves(group: BaseExceptionGroup) -> Iterator[BaseException]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _leaves(each)
        else:
            yield each


@contextmanager
def _lab(out: Path, scenario: Scenario) -> Iterator[Path]:
    """Bring a lab up, with wall clocks of its own, and take it down; the daemons' logs are kept."""
    sizes = scenario.run
    with tempfile.TemporaryDirectory(prefix="wgmap-chaos-") as name:
        directory = Path(name)
        releases.make_other(directory / OTHER_RELEASE, sizes.upgrade_from)
        environments = wallclock.environments(wallclock.build(directory))
        try:
            commands.up(directory, sizes.servers, sizes.agents, Quality(), environments)
            yield directory
        finally:
            commands.down(directory)
            logs = topology.paths(directory).logs
            for log in logs.glob("*.log"):
                (out / log.name).write_bytes(log.read_bytes())


class _Chaos:
    def __init__(
        self, scenario: Scenario, directory: Path, netns: str, recorder: file.Recorder
    ) -> None:
        self._scenario, self._netns = scenario, netns
        self._recorder, self._record = recorder, recorder.add
        self._site = Site(directory)
        self._site.other_release = directory / OTHER_RELEASE
        self._places = place.servers(self._site.lab)
        load = scenario.load
        rates = Rates(load.registers, load.lookups, load.refreshes, load.askers)
        self._fleet = Fleet(rates, self._rng("fleet"), self._record)
        self._site.servers_changed = self._tell_lights
        self._probes: probes.Probes | None = None

    def _rng(self, what: str) -> Random:
        return Random(f"{what} {self._scenario.run.seed}")  # noqa: S311  # to be repeated

    async def run(self, command: str) -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(THREADS))
        self._record(self._header(command))
        watch = asyncio.create_task(Watch(self._site, self._record).run())
        try:
            await self._enrol()
            path = self._recorder.path.with_name("flows.jsonl")
            rate = self._scenario.load.flow
            async with flows.flows(self._site, rate, path, self._record):
                async with self._probing(), self._load():
                    await asyncio.sleep(self._scenario.run.warm_s)
                    await self._befalling().run(self._scenario.run.minutes * 60)
                    healed = now()
                promised_s = self._scenario.bounds.converge_s
                await settling.settle(self._site, healed, promised_s, self._record)
        finally:
            watch.cancel()
        lights = [*self._fleet.lights, *self._fleet.retired]
        eids = [light.identity.eid for light in lights]
        if self._probes is not None:
            eids += [one.eid for one in probes.identities()]
        await settling.finals(self._site, self._fleet.lights[0], eids, self._record)
        for one in said(self._site):
            self._record(one)
        for light in lights:
            light.close()

    def _header(self, command: str) -> Run:
        scenario = self._scenario
        return Run(
            command=command,
            commit=commit(),
            seed=scenario.run.seed,
            servers=scenario.run.servers,
            agents=scenario.run.agents,
            lights=scenario.load.lights,
            probes=scenario.load.probes > 0,
            minutes=scenario.run.minutes,
            load=os.getloadavg()[0],
            begun=now(),
            staleness_s=STALENESS_S,
            **scenario.bounds.model_dump(),
        )

    def _befalling(self) -> Befalling:
        sizes, section = self._scenario.run, self._scenario.faults
        kinds = catalogue.choose(section.kinds, sizes.servers, sizes.agents)
        return Befalling(self._site, kinds, section, self._rng("faults"), self._record)

    def _light(self, number: int) -> Light:
        rng = self._rng(f"light {number}")
        return Light(identity(number), self._netns, self._places, rng, self._record)

    def _tell_lights(self) -> None:
        self._places = place.servers(self._site.lab)
        for light in (*self._fleet.lights, *self._fleet.retired):
            light.know(self._places)
        if self._probes is not None:
            self._probes.know(self._places)

    async def _enrol(self) -> None:
        lights = [self._light(number) for number in range(self._scenario.load.lights)]
        identities = [light.identity for light in lights]
        peers = [place.enrolment(one) for one in identities]
        await asyncio.to_thread(place.enrol, self._site.lab.servers[0], peers)
        for light in lights:
            self._fleet.add(light)

    @asynccontextmanager
    async def _probing(self) -> AsyncIterator[None]:
        """Let the probes work meanwhile; at the end what they saw is taken in."""
        load = self._scenario.load
        if not load.probes:
            yield
            return
        path = self._recorder.path.with_name("probes.jsonl")
        plan = probes.Plan(self._netns, str(path), load.probes, self._scenario.run.seed)
        self._probes, peers = await probes.Probes.start(plan)
        try:
            await asyncio.to_thread(place.enrol, self._site.lab.servers[0], peers)
            self._probes.know(self._places)
            yield
        finally:
            await self._probes.end()
        for one in file.records(path):
            self._record(one)

    @asynccontextmanager
    async def _load(self) -> AsyncIterator[None]:
        """Let everybody work meanwhile; at the end whatever is out comes to its end."""
        load = self._scenario.load
        rng = self._rng("operators")
        operators = Operators(self._site, self._fleet, self._light, rng, self._record)
        contacts = agents.Contacts(self._site, self._rng("contacts"), self._record)
        rotations = agents.Rotations(self._site, self._rng("rotations"), self._record)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._fleet.run())
            tasks.create_task(operators.run(load.operators))
            tasks.create_task(contacts.run(load.contacts))
            tasks.create_task(rotations.run(load.rotations))
            try:
                yield
            finally:
                for one in (self._fleet, operators, contacts, rotations):
                    one.stop()


def commit() -> str:
    """Return the commit of the checkout that this runs from, marked where it is changed."""
    argv = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=9",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout.strip()
