"""Servers that go over to another release one by one, and back the next time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

from wgmap import __version__
from wgmap_chaos.faults import releases
from wgmap_chaos.faults.effect import until
from wgmap_chaos.faults.kind import Effect, Kind
from wgmap_chaos.faults.servers import end
from wgmap_chaos.faults.site import SERVER_ROLES, Site
from wgmap_chaos.lab import environment, topology


@asynccontextmanager
async def rolling_upgrade(site: Site, _rng: Random) -> AsyncIterator[Effect]:
    """Bring all servers to the other release, the leader last; it is two releases meanwhile.

    An upgrade that has begun is finished: that is its heal.
    """
    leader = await site.leader()
    followers = [name for name in site.servers if name != leader]
    site.upgraded = not site.upgraded
    try:
        for name in followers:
            await _change(site, name)
        yield Effect(tuple(site.servers), SERVER_ROLES)
    finally:
        await _change(site, leader)


async def _change(site: Site, name: str) -> None:
    """Restart a server with the release that is wanted, and see that it runs; raises LabError."""
    variables = releases.environment(site.other_release if site.upgraded else None)
    environment.add(topology.paths(site.directory), name, variables)
    await end(site, name)
    await site.start_servers([name])
    version = releases.OTHER if site.upgraded else __version__

    async def look() -> bool:
        told = await site.ask(name, "/v1/openapi.json")
        return bool(told and told["info"]["version"] == version)

    await until(look, f"{name} runs {version}")


KINDS = (Kind("rolling upgrade", "servers", rolling_upgrade),)
