"""Wall clocks of servers that jump; nothing that is promised may depend on them."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from random import Random

from wgmap.errors import UnavailableError
from wgmap_chaos.faults import wallclock
from wgmap_chaos.faults.effect import until
from wgmap_chaos.faults.kind import Effect, Kind
from wgmap_chaos.faults.site import Site
from wgmap_chaos.lab import observation, topology

JUMPS_S = (60.0, 3600.0, 86_400.0, 400 * 86_400.0)
NEAR_S = 3.0  # what a server says is of whole seconds, and comes a little later


@asynccontextmanager
async def one_jumps(site: Site, rng: Random) -> AsyncIterator[Effect]:
    """Let one server's wall clock be wrong."""
    async with _wrong(site, {rng.choice(site.servers): _jump(rng)}) as effect:
        yield effect


@asynccontextmanager
async def all_jump(site: Site, rng: Random) -> AsyncIterator[Effect]:
    """Let every server have a wall clock of its own."""
    async with _wrong(site, {name: _jump(rng) for name in site.servers}) as effect:
        yield effect


def _jump(rng: Random) -> float:
    return rng.choice(JUMPS_S) * rng.choice((-1, 1))


@asynccontextmanager
async def _wrong(site: Site, jumps: Mapping[str, float]) -> AsyncIterator[Effect]:
    try:
        await _set(site, jumps)
        yield Effect(tuple(jumps))
    finally:
        await _set(site, dict.fromkeys(jumps, 0.0))


async def _set(site: Site, jumps: Mapping[str, float]) -> None:
    """Make the clocks wrong by so much, and see the servers believe it; raises LabError."""
    paths = topology.paths(site.directory)
    for name, seconds in jumps.items():
        wallclock.of(paths, name).jump(seconds)
    await asyncio.gather(*(_believed(site, name, seconds) for name, seconds in jumps.items()))


async def _believed(site: Site, name: str, seconds: float) -> None:
    async def look() -> bool:
        try:
            told = await asyncio.to_thread(observation.admin_time, site.server(name).admin_socket)
        except UnavailableError:
            return False
        return abs(told - time.clock_gettime(time.CLOCK_REALTIME) - seconds) < NEAR_S

    await until(look, f"{name} takes its clock to be {seconds:+.0f} s wrong")


KINDS = (
    Kind("a clock jumps", "clocks", one_jumps, servers=1),
    Kind("clocks jump apart", "clocks", all_jump, servers=1),
)
