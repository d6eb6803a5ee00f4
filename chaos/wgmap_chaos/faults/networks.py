"""Networks that are cut: between servers, between agents and servers, between agents."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from random import Random

from wgmap_chaos.faults import cuts, shapes
from wgmap_chaos.faults.effect import until
from wgmap_chaos.faults.kind import Effect, Kind
from wgmap_chaos.faults.site import Site
from wgmap_chaos.lab import commands
from wgmap_chaos.lab.errors import LabError
from wgmap_chaos.lab.relay import Counters, Quality

LOSS_PERCENT = 3.0
DELAY_MS = 20.0
DUPLICATE_PERCENT = 20.0
JITTER_MS = 10.0


@asynccontextmanager
async def cut(site: Site, wanted: shapes.Cuts[str], *, data: bool = False) -> AsyncIterator[Effect]:
    """Cut these while the block runs; each pair must have missed something. Raises LabError.

    A server that is replaced meanwhile is left out: who is cut off does not learn of the new one.
    """
    table, replaced = site.table(), len(site.replaced)
    unheard: dict[str, list[str]] = defaultdict(list)
    for sender, receiver in wanted:
        unheard[receiver].append(sender)
    try:
        for receiver, senders in unheard.items():
            addresses = {sender: site.addresses(sender) for sender in senders}
            await cuts.deafen(site.netns(receiver), table, addresses)
        yield Effect(tuple(sorted({name for pair in wanted for name in pair})), data=data)
        await asyncio.gather(*(_effective(site, table, pair, replaced) for pair in _pairs(wanted)))
        if all(pair & set(site.replaced[replaced:]) for pair in _pairs(wanted)):
            raise LabError("a cut from a server that was replaced at the same time")
    finally:
        for receiver in unheard:
            await cuts.deafen(site.netns(receiver), table, {})
    for receiver in unheard:
        if await cuts.dropped(site.netns(receiver), table):
            raise LabError(f"the cut at {receiver} is not healed")


def _pairs(wanted: shapes.Cuts[str]) -> set[frozenset[str]]:
    return {frozenset(each) for each in wanted}


async def _effective(site: Site, table: str, pair: frozenset[str], replaced: int) -> None:
    """Wait until something between two hosts was dropped, at either end, or one was replaced.

    ``replaced``: so many servers were before.
    """
    one, other = sorted(pair)

    async def look() -> bool:
        if pair & set(site.replaced[replaced:]):
            return True
        mine = (await cuts.dropped(site.netns(one), table)).get(other, 0)
        return mine + (await cuts.dropped(site.netns(other), table)).get(one, 0) > 0

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
    quality = Quality(rng.uniform(2.0, DELAY_MS), rng.uniform(0.5, LOSS_PERCENT))
    async with _underlay(site, quality, lambda counted: counted.lost > 0) as effect:
        yield effect


@asynccontextmanager
async def twice_and_in_disorder(site: Site, rng: Random) -> AsyncIterator[Effect]:
    """Let packets come twice, and overtake each other."""
    quality = Quality(
        duplicate_percent=rng.uniform(2.0, DUPLICATE_PERCENT), jitter_ms=rng.uniform(1.0, JITTER_MS)
    )
    seen: Callable[[Counters], bool] = lambda c: c.duplicated > 0 and c.overtaken > 0  # noqa: E731
    async with _underlay(site, quality, seen) as effect:
        yield effect


@asynccontextmanager
async def _underlay(
    site: Site, quality: Quality, seen: Callable[[Counters], bool]
) -> AsyncIterator[Effect]:
    """Change the whole underlay; ``seen`` tells by the relay's counters that it has an effect."""

    async def look() -> bool:
        return seen(await asyncio.to_thread(commands.relayed, site.directory))

    try:
        await asyncio.to_thread(commands.set_quality, site.directory, **asdict(quality))
        await until(look, f"{quality} does something")
        yield Effect((*site.servers, *site.agents), data=True)  # the change itself loses packets
    finally:
        await asyncio.to_thread(commands.set_quality, site.directory, **asdict(Quality()))


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
    Kind("twice and in disorder", "underlay", twice_and_in_disorder, servers=1),
)
