"""Agents that move, die, or lose their machine."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

from wgmap_chaos.faults import processes
from wgmap_chaos.faults.effect import until
from wgmap_chaos.faults.kind import Effect, Kind
from wgmap_chaos.faults.servers import kill_all
from wgmap_chaos.faults.site import AGENT_ROLES, Site, wireguard_pids
from wgmap_chaos.lab import observation, shell
from wgmap_chaos.lab.inventory import AgentEntry

WIREGUARD = "wireguard"


@asynccontextmanager
async def move(site: Site, rng: Random) -> AsyncIterator[Effect]:
    """Give an agent other underlay addresses."""
    name = rng.choice(site.agents)
    await site.movers[name].move()
    yield Effect((name,), data=True)


@asynccontextmanager
async def double_jump(site: Site, _rng: Random) -> AsyncIterator[Effect]:
    """Move both ends of the first flow at once."""
    both = site.agents[:2]
    await asyncio.gather(*(site.movers[name].move() for name in both))
    yield Effect(tuple(both), data=True)


@asynccontextmanager
async def kill_agent(site: Site, rng: Random) -> AsyncIterator[Effect]:
    """Kill an agent's daemon; its tunnels stay."""
    name = rng.choice(site.agents)
    await _kill(site.agent(name))
    try:
        yield Effect((name,), AGENT_ROLES)
    finally:
        await site.start_agents([name])
        await _registered(site, name)


@asynccontextmanager
async def reboot_agent(site: Site, rng: Random) -> AsyncIterator[Effect]:
    """Lose an agent's machine: daemon, tunnels, TUN."""
    name = rng.choice(site.agents)
    await _lose(site, name)
    try:
        yield Effect((name,), (*AGENT_ROLES, WIREGUARD), data=True)
    finally:
        await site.start_agents([name])
        await _registered(site, name)


@asynccontextmanager
async def reboot_agent_alone(site: Site, rng: Random) -> AsyncIterator[Effect]:
    """Reboot an agent while no server lives; it comes back from its cache."""
    name = rng.choice(site.agents)
    async with kill_all(site, rng) as servers:
        await _lose(site, name)
        await site.start_agents([name])
        roles = (*servers.roles, *AGENT_ROLES, WIREGUARD)
        yield Effect((*servers.targets, name), roles, data=True)
    await _registered(site, name)


async def _lose(site: Site, name: str) -> None:
    agent = site.agent(name)
    await _kill(agent)
    await processes.kill(wireguard_pids(agent.interfaces))
    await asyncio.to_thread(
        shell.run, ["ip", "-n", agent.netns, "link", "delete", "dev", agent.tun]
    )
    await site.gone(agent.netns, (*agent.interfaces, agent.tun))


async def _kill(agent: AgentEntry) -> None:
    pid = observation.agent_pid(agent.netns, agent.config)
    assert pid is not None, f"{agent.name} runs"
    await processes.kill([pid])


async def _registered(site: Site, name: str) -> None:
    agent = site.agent(name)

    async def look() -> bool:
        told = await asyncio.to_thread(observation.agent_status, agent.socket)
        return bool(told and told["registered"])

    await until(look, f"{name} is registered again")


KINDS = (
    Kind("an agent moves", "underlay", move, servers=1, agents=1),
    Kind("both ends move", "underlay", double_jump, servers=1, agents=2),
    Kind("kill an agent", "agents", kill_agent, servers=1, agents=1),
    Kind("reboot an agent", "agents", reboot_agent, servers=1, agents=1),
    Kind("reboot an agent, no server lives", "servers", reboot_agent_alone, servers=1, agents=1),
)
