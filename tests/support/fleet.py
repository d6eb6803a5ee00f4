"""Registered agents and a map server that behaves."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from support.agents import AgentHost, Sections, World, connect, make_agent, make_server, world
from support.map_server import MapServer
from wgmap_chaos.lab.relay import RelayControl


@dataclass
class Fleet:
    """Agents which have not spoken yet."""

    net: World
    server: MapServer
    agents: list[AgentHost]
    relay: RelayControl

    @property
    def one(self) -> AgentHost:
        """The first agent."""
        return self.agents[0]

    @property
    def two(self) -> AgentHost:
        """The second agent."""
        return self.agents[1]


@asynccontextmanager
async def fleet(
    directory: Path,
    delay_ms: float,
    count: int = 2,
    rp_filter: int = 0,
    sections: Sections | None = None,
) -> AsyncIterator[Fleet]:
    """Make and start them; ``delay_ms``: one way between any two hosts.

    ``sections``: what is added to the agents' configurations or changed.
    """
    with world("rn") as net:
        server = make_server(net, 1)
        numbers = range(1, count + 1)
        agents = [make_agent(net, n, directory, [server], rp_filter, sections) for n in numbers]
        relay = connect(net, directory, delay_ms)
        server.start()
        try:
            await asyncio.gather(*(asyncio.to_thread(agent.start) for agent in agents))
            yield Fleet(net, server, agents, relay)
        finally:
            await server.close()
