"""Links of the underlay that take only small frames: the kernel fragments, or drops unsaid.

A host's own port is made narrow, so what it sends is fragmented. The other end of its cable is the
bridge's, narrow as well: what is too long for it is dropped there, and nobody is told.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

from wgmap_chaos.faults.effect import until
from wgmap_chaos.faults.kind import Effect, Kind
from wgmap_chaos.faults.site import Site
from wgmap_chaos.lab import shell, topology
from wgmap_chaos.lab.errors import LabError

USUAL, NARROW = 1500, 1280  # less is no link for IPv6 (RFC 8200, section 5)
_PING_HEADERS = 28  # IPv4 and ICMP
PING_S = 1


@asynccontextmanager
async def narrow_server(site: Site, rng: Random) -> AsyncIterator[Effect]:
    """Give a server a narrow link."""
    async with _narrow(site, rng.choice(site.servers)) as effect:
        yield effect


@asynccontextmanager
async def narrow_agent(site: Site, rng: Random) -> AsyncIterator[Effect]:
    """Give an agent a narrow link; packets that fit must not suffer."""
    async with _narrow(site, rng.choice(site.agents)) as effect:
        yield effect


@asynccontextmanager
async def _narrow(site: Site, name: str) -> AsyncIterator[Effect]:
    try:
        await _set(site, name, NARROW)
        yield Effect((name,))
    finally:
        await _set(site, name, USUAL)


async def _set(site: Site, name: str, mtu: int) -> None:
    """Set how long frames may be, at both ends, and see that it is so; raises LabError."""
    lab = topology.plan(site.directory, len(site.servers), len(site.agents))
    host = next(one for one in lab.hosts if one.name == name)
    for netns, interface in ((host.netns, host.port.host), (lab.netns, host.port.near)):
        argv = ["ip", "-n", netns, "link", "set", "dev", interface, "mtu", str(mtu)]
        await asyncio.to_thread(shell.run, argv)
    if mtu == USUAL:
        await until(lambda: _passes(site, name, USUAL), f"{name} gets long frames again")
        return
    await until(lambda: _passes(site, name, NARROW), f"{name} gets short frames")
    if await _passes(site, name, USUAL):
        raise LabError(f"{name} gets frames of {USUAL} bytes through a link for {NARROW}")


async def _passes(site: Site, name: str, size: int) -> bool:
    """Ping a host in one packet of a size, from another host."""
    other = next(one for one in (*site.servers, *site.agents) if one != name)
    options = [
        "-n",
        "-q",
        "-c",
        "1",
        "-W",
        str(PING_S),
        "-M",
        "do",
        "-s",
        str(size - _PING_HEADERS),
    ]
    argv = ["ping", *options, str(site.addresses(name)[0])]
    try:
        await asyncio.to_thread(shell.run, shell.inside(site.netns(other), argv))
    except LabError:
        return False
    return True


KINDS = (
    Kind("a server's link is narrow", "underlay", narrow_server, servers=2),
    Kind("an agent's link is narrow", "underlay", narrow_agent, servers=1, agents=1),
)
