"""A lab that faults befall: who is there, who leads, what is started again."""

import asyncio
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from wgmap.addresses import IPAddress
from wgmap.errors import UnavailableError
from wgmap_chaos.faults.effect import until, until_true
from wgmap_chaos.lab import commands, inventory, observation, removal, shell, topology
from wgmap_chaos.lab.inventory import AgentEntry, Inventory, ServerEntry
from wgmap_chaos.moves.mover import Mover

SERVER_ROLES = observation.SERVER_ROLES
AGENT_ROLES = ("agent",)


class Site:
    """A running lab; what takes time is done in threads."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lab: Inventory = inventory.read(topology.paths(directory).inventory)
        self.movers = {agent.name: Mover(agent) for agent in self.lab.agents}
        self.servers_changed: Callable[[], None] = lambda: None  # called when one has other keys
        self.other_release: Path | None = None  # beside the one that is here
        self.upgraded = False  # whether servers run the other one, or are to
        self.replaced: list[str] = []  # servers that were thrown away, in their order
        self._tables = 0

    # ------------------------------------------------------------------------------- who

    @property
    def servers(self) -> list[str]:
        """Names of the servers."""
        return [server.name for server in self.lab.servers]

    @property
    def agents(self) -> list[str]:
        """Names of the agents."""
        return [agent.name for agent in self.lab.agents]

    def server(self, name: str) -> ServerEntry:
        """Find a server."""
        return self.lab.server(name)

    def agent(self, name: str) -> AgentEntry:
        """Find an agent."""
        return self.lab.agent(name)

    def addresses(self, name: str) -> tuple[IPAddress, ...]:
        """Return where a host is on the underlay now, IPv4 first."""
        if name in self.movers:
            return self.movers[name].addresses
        return (self.server(name).underlay,)

    def netns(self, name: str) -> str:
        """Return a host's namespace."""
        return self.agent(name).netns if name in self.movers else self.server(name).netns

    def pids(self, name: str, roles: Collection[str] = SERVER_ROLES) -> list[int]:
        """Return a server's living processes."""
        server = self.server(name)
        found = observation.server_pids(server.netns, server.state_dir)
        return [pid for role, pid in found.items() if role in roles and pid is not None]

    def role_pid(self, name: str, role: str) -> int | None:
        """Return one process of a server."""
        return next(iter(self.pids(name, (role,))), None)

    def table(self) -> str:
        """Return a name for a table of nft that nobody else has."""
        self._tables += 1
        return f"chaos{self._tables}"

    # ----------------------------------------------------------------------------- asking

    async def status(self, name: str) -> Any:
        """Return what a server says of the cluster; None where it does not answer."""
        return await self.ask(name, "/v1/status")

    async def ask(self, name: str, resource: str, **query: str) -> Any:
        """Ask a server's admin API; None where it does not answer."""
        path = self.server(name).admin_socket
        with suppress(UnavailableError):
            return await asyncio.to_thread(observation.admin_get, path, resource, **query)
        return None

    async def leader(self) -> str:
        """Wait until one leads that a majority knows of; raises LabError."""
        found: list[str] = []

        async def look() -> bool:
            views = await asyncio.gather(*map(self.status, self.servers))
            leaders = [view["leader"] for view in views if view is not None and view["leader"]]
            found[:] = [one for one in set(leaders) if leaders.count(one) * 2 > len(views)]
            return bool(found)

        await until(look, "a leader")
        return found[0]

    # ----------------------------------------------------------------------- starting again

    async def start_servers(self, names: Sequence[str]) -> None:
        """Start servers again, until they answer; raises LabError."""
        self.lab = await asyncio.to_thread(commands.start_servers, self.directory, names)

    async def start_agents(self, names: Sequence[str]) -> None:
        """Start agents again, until they answer; raises LabError."""
        self.lab = await asyncio.to_thread(commands.start_agents, self.directory, names)

    async def gone(self, netns: str, interfaces: Iterable[str]) -> None:
        """Wait until interfaces do not exist any more; raises LabError."""
        wanted = set(interfaces)
        argv = ["ip", "-n", netns, "-json", "link", "show"]

        async def look() -> bool:
            listed = json.loads(await asyncio.to_thread(shell.run, argv))
            return not wanted & {one.get("ifname") for one in listed}

        await until(look, f"{', '.join(sorted(wanted))} gone")


def wireguard_pids(interfaces: Iterable[str]) -> list[int]:
    """Return the processes behind userspace interfaces."""
    found = map(observation.wireguard_pid, interfaces)
    return [pid for pid in found if pid is not None]


async def replaced(site: Site, name: str, role: str, old: int) -> None:
    """Wait until a process of a server is there again, as another one; raises LabError."""

    def look() -> bool:
        pid = site.role_pid(name, role)
        return pid is not None and pid != old and removal.alive(pid)

    await until_true(look, f"{name}: another {role}")
