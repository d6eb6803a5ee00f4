"""Faults come and go, one or two at a time, until the time is over."""

import asyncio
from collections.abc import Callable, Sequence
from random import Random

from wgmap.clock import now
from wgmap_chaos.faults import catalogue
from wgmap_chaos.faults.kind import Kind
from wgmap_chaos.faults.site import Site
from wgmap_chaos.history.records import Fault
from wgmap_chaos.whole.scenario import FaultsSection


class Befalling:
    """Chooses from a seed; a fault that takes no effect, or does not heal, ends the run."""

    def __init__(
        self,
        site: Site,
        kinds: Sequence[Kind],
        section: FaultsSection,
        rng: Random,
        record: Callable[[Fault], None],
    ) -> None:
        self._site, self._kinds, self._section = site, kinds, section
        self._rng, self._record = rng, record

    async def run(self, seconds: float) -> None:
        """Go on for so long and until the last one is healed; raises LabError."""
        end = now() + seconds
        for together in catalogue.order(self._kinds, self._rng, self._section.together):
            if now() >= end:
                return
            hold_s = self._rng.uniform(*self._section.hold_s)
            async with asyncio.TaskGroup() as tasks:
                for kind in together:
                    rng = Random(self._rng.getrandbits(64))  # noqa: S311  # to be repeated
                    tasks.create_task(self._befall(kind, hold_s, rng))
            await asyncio.sleep(self._rng.uniform(*self._section.calm_s))

    async def _befall(self, kind: Kind, hold_s: float, rng: Random) -> None:
        begun = now()
        async with kind.befall(self._site, rng) as effect:
            effective = now()
            await asyncio.sleep(hold_s)
            healing = now()
        fault = Fault(
            name=kind.name, targets=effect.targets, roles=effect.roles, data=effect.data,
            begun=begun, effective=effective, healing=healing, healed=now(),
        )  # fmt: skip
        self._record(fault)
        took = f"{effective - begun:.1f}, {healing - effective:.1f}, {fault.healed - healing:.1f} s"
        print(f"{begun:9.1f} {kind.name}: {', '.join(fault.targets)} ({took})", flush=True)
