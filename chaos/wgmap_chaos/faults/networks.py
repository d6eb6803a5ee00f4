"""Networks that are cut: between servers, between agents and servers, between agents."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random

from wgmap.addresses import IPAddress
from wgmap_chaos.faults import cuts, shapes
from wgmap_chaos.faults.effect import until
from wgmap_chaos.faults.kind import Effect, Kind
from wgmap_chaos.faults.site import Site
from wgmap_chaos.lab import commands
from wgmap_chaos.lab.errors import LabError

LOSS_PERCENT = 3.0
DELAY_MS = 20.0


def _addresses(site: Site, name: str) -> tuple[IPAddress, ...]:
    if name in site.movers:
        return site.movers[name].addresses
    return (site.server(name).underlay,)


def _netns(site: Site, name: str) -> str:
    return site.agent(name).netns if name in site.movers else site.server(name).netns


@asynccontextmanager
async def cut(site: Site, wanted: shapes.Cuts[str], *, data: bool = False) -> AsyncIterator[Effect]:
    """Cut these while the block runs; each pair must have missed something. Raises LabError."""
    table = site.table()
    unheard: dict[str, list[str]] = defaultdict(list)
    for sender, receiver in wanted:
        unheard[receiver].append(sender)
    try:
        for receiver, senders in unheard.items():
            addresses = {sender: _addresses(site, sender) for sender in senders}
            await cuts.deafen(_netns(site, receiver), table, addresses)
        yield Effect(tuple(sorted({name for pair in wanted for name in pair})), data=data)
        await asyncio.gather(*(_effective(site, table, pair) for pair in _pairs(wanted)))
    finally:
        for receiver in unheard:
            await cuts.deafen(_netns(site, receiver), table, {})
    for receiver in unheard:
        if await cuts.dropped(_netns(site, receiver), table):
            raise LabError(f"the cut at {receiver} is not healed")


def _pairs(wanted: shapes.Cuts[str]) -> set[frozenset[str]]:
    return {frozenset(each) for each in wanted}


async def _effective(site: Site, table: str, pair: frozenset[str]) -> None:
    """Wait until something between two hosts was dropped, at either end."""
    one, other = sorted(pair)

    async def look() -> bool:
        mine = (await cuts.dropped(_netns(site, one), table)).get(other, 0)
        return mine + (await cuts.dropped(_netns(site, other), table)).get(one, 0) > 0

    await until(look, f"the cut between {one} and {other}")


@asynccontextmanager
async def cut_leader(site: Site, _rng: Random) -> AsyncIterator[Effect]:
    """Cut the leader off from all other servers."""
    async with cut(site, shapes.around(await site.leader(), site.servers)) as effect:
        yield effect


@asynccontextmanager
async def cut_one(site: Site, rng: Random) -> AsyncIterator[Effect]:
    """Cut one server off from all others."""
    async with cut(site, shapes.around(rng.choice(site.servers), site.servers)) as effect:
        yield effect


@asynccontextmanager
async def deaf_leader(site: Site, _rng: Random) -> AsyncIterator[Effect]:
    """Let the leader be heard, and hear nobody."""
    async with cut(site, shapes.deaf(await site.leader(), site.servers)) as effect:
        yield effect


@asynccontextmanager
async def mute_leader(site: Site, _rng: Random) -> AsyncIterator[Effect]:
    """Let the leader hear all, and nobody hear it."""
    async with cut(site, shapes.mute(await site.leader(), site.servers)) as effect:
        yield effect


@asynccontextmanager
async def ring(site: Site, rng: Random) -> AsyncIterator[Effect]:
    """Let servers hear only their neighbours."""
    async with cut(site, shapes.ring(_shuffled(site, rng))) as effect:
        yield effect


@asynccontextmanager
async def halves(site: Site, rng: Random) -> AsyncIterator[Effect]:
    """Leave the leader in the smaller half."""
    leader = await site.leader()
    others = [name for name in site.servers if name != leader]
    part = {leader, *rng.sample(others, (len(site.servers) - 1) // 2 - 1)}
    async with cut(site, shapes.halves(part, site.servers)) as effect:
        yield effect


@asynccontextmanager
async def bridge(site: Site, rng: Random) -> AsyncIterator[Effect]:
    """Let two halves meet in one server only."""
    async with cut(site, shapes.bridge(_shuffled(site, rng))) as effect:
        yield effect


def _shuffled(site: Site, rng: Random) -> list[str]:
    return rng.sample(site.servers, len(site.servers))


@asynccontextmanager
async def agent_from_servers(site: Site, rng: Random) -> AsyncIterator[Effect]:
    """Cut an agent off from some servers, or from all, both ways."""
    agent = rng.choice(site.agents)
    some = rng.sample(site.servers, rng.randint(1, len(site.servers)))
    async with cut(site, _between([agent], some)) as effect:
        yield effect


@asynccontextmanager
async def deaf_agent(site: Site, rng: Random) -> AsyncIterator[Effect]:
    """Let an agent hear no server; they hear it."""
    agent = rng.choice(site.agents)
    one_way = {(server, agent) for server in site.servers}
    async with cut(site, one_way) as effect:
        yield effect


@asynccontextmanager
async def agents_apart(site: Site, rng: Random) -> AsyncIterator[Effect]:
    """Cut the way between the agents of the first flow; servers reach both."""
    one, other = site.agents[:2]
    wanted = _between([one], [other])
    if rng.random() < 0.5:
        wanted = {(one, other)}
    async with cut(site, wanted, data=True) as effect:
        yield effect


def _between(some: Sequence[str], others: Sequence[str]) -> shapes.Cuts[str]:
    return {pair for a in some for b in others for pair in ((a, b), (b, a))}


@asynccontextmanager
async def bad_underlay(site: Site, rng: Random) -> AsyncIterator[Effect]:
    """Make the whole underlay slow and let it lose packets."""
    delay, loss = rng.uniform(2.0, DELAY_MS), rng.uniform(0.5, LOSS_PERCENT)
    try:
        await asyncio.to_thread(commands.set_quality, site.directory, delay, loss)
        yield Effect((*site.servers, *site.agents), data=True)
    finally:
        await asyncio.to_thread(commands.set_quality, site.directory, 0.0, 0.0)


KINDS = (
    Kind("cut the leader off", "mesh", cut_leader),
    Kind("cut a server off", "mesh", cut_one),
    Kind("the leader is deaf", "mesh", deaf_leader),
    Kind("the leader is mute", "mesh", mute_leader),
    Kind("ring of servers", "mesh", ring),
    Kind("halves of servers", "mesh", halves),
    Kind("bridge of servers", "mesh", bridge, servers=5),
    Kind("an agent without servers", "agents", agent_from_servers, servers=1, agents=1),
    Kind("an agent that hears no server", "agents", deaf_agent, servers=1, agents=1),
    Kind("agents apart", "underlay", agents_apart, servers=1, agents=2),
    Kind("loss and delay", "underlay", bad_underlay, servers=1),
)
