"""The scenarios, and one trial of one of them: a flow through wgmap and one through WireGuard."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from wgmap.addresses import IPAddress
from wgmap.clock import now
from wgmap_chaos.demo.ping import first_reply_ms
from wgmap_chaos.flow import Flow, OneWayFlow
from wgmap_chaos.lab import inventory, observation
from wgmap_chaos.lab.inventory import AgentEntry, ServerEntry
from wgmap_chaos.moves.mover import Mover
from wgmap_chaos.moves.plain import PlainTunnel
from wgmap_chaos.priority import favour, of_lab
from wgmap_chaos.programs import ProgramError, ask, run

LAB_FILE = "lab.json"
BEFORE_S = 0.4  # the flow before the move
DEAD_S = 0.5  # a server is dead for so long when they move
READY_S = 90.0  # a server that was started again has to catch up, on a busy machine
WGMAP_PORT, PLAIN_PORT = 7007, 7008


@dataclass(frozen=True, slots=True)
class Scenario:
    """What happens to a flow from a1 to a2."""

    title: str
    happens: Callable[["Ground"], Awaitable[None]]
    one_way: bool = False  # nothing answers: only a1 sends
    limit_s: float = 1.0  # the worst that is allowed
    kills: bool = False  # a server is started again afterwards


@dataclass(frozen=True, slots=True)
class Measured:
    """How long the flows of one trial were silent; ``limit_s`` is all that was waited for."""

    wgmap_s: float
    plain_s: float | None


class Ground:
    """A running lab, the agents that move and the tunnel beside."""

    def __init__(self, directory: Path, *, window_s: float = 3.0, favoured: bool = False) -> None:
        """``favoured``: over other work of the machine, which is not to be measured along."""
        self.directory = directory
        self.favoured = favoured
        self.window_s = window_s
        self._led_by: ServerEntry | None = None
        first, second = self.lab.agents[:2]
        self.one, self.two = Mover(first), Mover(second)

    @property
    def lab(self) -> inventory.Inventory:
        """``lab.json`` as it is now."""
        return inventory.read(self.directory / LAB_FILE)

    # ------------------------------------------------------------------------------- a trial

    async def trial(
        self, scenario: Scenario, family: int, plain: PlainTunnel | None = None
    ) -> Measured:
        """Measure one move; ``family``: 0 for a flow over IPv4, 1 over IPv6."""
        await self.ready()
        self._favour(plain)
        if plain is not None:
            await asyncio.to_thread(plain.set_endpoints)
        if scenario.kills:  # found out before: whatever waits meanwhile would count as silence
            self._led_by = await asyncio.to_thread(self.leader)
        flows = [self._flow(scenario, self.two.agent.eids[family], WGMAP_PORT)]
        if plain is not None:
            flows.append(self._flow(scenario, plain.ends[1].eids[family], PLAIN_PORT))
        async with AsyncExitStack() as stack:
            for flow in flows:
                await stack.enter_async_context(flow)
            await asyncio.sleep(BEFORE_S)
            await scenario.happens(self)
            await asyncio.sleep(self.window_s)
        gaps = [
            one.record.longest_way_out_gap_s if scenario.one_way else one.record.longest_gap_s
            for one in flows
        ]
        if scenario.kills:
            await asyncio.to_thread(self._start_servers)
        return Measured(gaps[0], gaps[1] if plain is not None else None)

    def _favour(self, plain: PlainTunnel | None) -> None:
        """Give everything that is compared one priority; servers were started again meanwhile."""
        if self.favoured:
            favour([os.getpid(), *of_lab(self.lab), *(plain.pids if plain is not None else ())])

    def _flow(self, scenario: Scenario, eid: IPAddress, port: int) -> Flow:
        ends = (self.one.agent.netns, self.two.agent.netns)
        kind = OneWayFlow if scenario.one_way else Flow
        return kind(*ends, eid, port=port, linger_s=0.2)

    async def ready(self) -> None:
        """Wait until both agents are registered, with a tunnel that stands; ProgramError."""
        deadline = now() + READY_S
        while not await asyncio.to_thread(self._is_ready):
            if now() > deadline:
                states = [
                    observation.agent_status(one.agent.socket) for one in (self.one, self.two)
                ]
                raise ProgramError(f"the agents did not come to rest: {states}")
            await asyncio.sleep(0.1)

    def _is_ready(self) -> bool:
        ends = (self.one.agent, self.two.agent)
        for source, target in (ends, ends[::-1]):
            if first_reply_ms(source.netns, str(target.eids[0]), 1.0) is None:
                return False
        return all(_is_calm(agent) for agent in ends)

    def _start_servers(self) -> None:
        run("wgmap-chaos", "lab", "start-servers", "--dir", str(self.directory), timeout_s=600)

    # ------------------------------------------------------------------------- what happens

    async def sender_moves(self) -> None:
        """Let the sending side move."""
        await self.one.move()

    async def receiver_moves(self) -> None:
        """Let the receiving side move, which has nothing to send."""
        await self.two.move()

    async def both_move(self) -> None:
        """Let both move at the same moment."""
        await asyncio.gather(self.one.move(), self.two.move())

    async def both_move_without_a_follower(self) -> None:
        """Kill a server that does not lead; a moment later both move."""
        kill(next(one for one in self.lab.servers if one.name != self._leader().name))
        await asyncio.sleep(DEAD_S)
        await self.both_move()

    async def both_move_as_the_leader_dies(self) -> None:
        """Kill the leader at the moment at which both move."""
        kill(self._leader())
        await self.both_move()

    async def there_and_back(self) -> None:
        """Let the sending side move, and back within a second."""
        await self.one.move()
        await asyncio.sleep(0.5)
        await self.one.back()

    def _leader(self) -> ServerEntry:
        if self._led_by is None:
            raise ProgramError("nobody asked who leads")
        return self._led_by

    def leader(self) -> ServerEntry:
        """Return the server that leads; raises ProgramError."""
        for server in self.lab.servers:
            told = ask("wgmap", "--socket", str(server.admin_socket), "status")
            for one in told["servers"]:
                if one["state"] == "leader":
                    return self.lab.server(one["name"])
        raise ProgramError("no server leads")


SCENARIOS = (
    Scenario("one side moves while it sends", Ground.sender_moves),
    Scenario("one side moves, only the other sends", Ground.receiver_moves, one_way=True),
    Scenario("both move at once", Ground.both_move),
    Scenario("both move, a server is dead", Ground.both_move_without_a_follower, kills=True),
    Scenario(
        "both move while the leader is killed",
        Ground.both_move_as_the_leader_dies,
        limit_s=2.0,
        kills=True,
    ),
    Scenario("one side moves and back within a second", Ground.there_and_back),
)


def kill(server: ServerEntry) -> None:
    """End the processes of a server as a crash does."""
    for pid in server.pids.values():
        if pid is not None:
            os.kill(pid, signal.SIGKILL)


def _is_calm(agent: AgentEntry) -> bool:
    status = observation.agent_status(agent.socket)
    if status is None or not status["registered"]:
        return False
    return all(peer["state"] in ("up", "idle") for peer in status["peers"])
