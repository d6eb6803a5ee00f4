"""Two registered agents and a map server that behaves."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from support.agents import AgentHost, World, connect, make_agent, make_server, world
from support.map_server import MapServer
from wgmap_chaos.lab.relay import RelayControl


@dataclass
class Pair:
    """The two, which have not spoken yet."""

    net: World
    server: MapServer
    one: AgentHost
    two: AgentHost
    relay: RelayControl


@asynccontextmanager
async def pair(directory: Path, delay_ms: float, rp_filter: int = 0) -> AsyncIterator[Pair]:
    """Make and start them; ``delay_ms``: one way between any two hosts."""
    with world("rn") as net:
        server = make_server(net, 1)
        one, two = (make_agent(net, n, directory, [server], rp_filter) for n in (1, 2))
        relay = connect(net, directory, delay_ms)
        server.start()
        try:
            await asyncio.gather(asyncio.to_thread(one.start), asyncio.to_thread(two.start))
            yield Pair(net, server, one, two, relay)
        finally:
            await server.close()
