"""First contacts before and after something happened to servers; and without any server."""

import asyncio
import re
import statistics
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wgmap.clock import now
from wgmap.errors import UnavailableError
from wgmap_agent.engine.settings import Settings
from wgmap_agent.runner.statussocket import request
from wgmap_chaos.contacts.contact import forget
from wgmap_chaos.demo.ping import first_reply_ms
from wgmap_chaos.failover.faults import FAULTS, all_killed
from wgmap_chaos.flow import Flow
from wgmap_chaos.lab import inventory, observation, topology
from wgmap_chaos.lab.inventory import AgentEntry, Inventory, ServerEntry
from wgmap_chaos.lab.waiting import Deadline

REPLY_S = 3.0  # a first contact that takes longer counts as lost
READY_S = 60.0
_UNREACHABLE = re.compile(r"(Host|Address) [Uu]nreachable")


@dataclass
class Measured:
    """The first contacts of one case, in ms; None: lost."""

    fault: str
    delay_ms: float
    led: bool  # whether the server was the leader
    hedge_ms: float  # after which the others are asked
    before: list[float | None] = field(default_factory=list)
    after: list[float | None] = field(default_factory=list)
    heard_s: tuple[float, float] | None = None  # of the dead server, as the status says it, twice

    @property
    def lost(self) -> int:
        """Return how many first contacts came to nothing."""
        return [*self.before, *self.after].count(None)

    @property
    def growth_ms(self) -> float:
        """Return by how much the median grew."""
        before, after = self.median_ms
        return after - before

    @property
    def median_ms(self) -> tuple[float, float]:
        """Return the medians before and after; infinite where all were lost."""
        return _median(self.before), _median(self.after)

    @property
    def worst_ms(self) -> tuple[float, float]:
        """Return the worst before and after, of those that came."""
        return _worst(self.before), _worst(self.after)

    @property
    def held(self) -> bool:
        """Say whether nothing was lost and the median grew by one hedge delay at most."""
        return not self.lost and self.growth_ms <= self.hedge_ms


@dataclass(frozen=True, slots=True)
class Alone:
    """What agents do without any server."""

    family: int
    flow_sent: int
    flow_lost: int
    refused_after_s: float | None  # a new contact; None: nobody said anything
    configured_s: float


# In the overlay and nobody's: whom an agent has met, it reaches from its cache.
STRANGER = ("10.66.250.1", "fd66::fa")


class Ground:
    """A running lab with three servers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def lab(self) -> Inventory:
        """``lab.json`` as it is now."""
        return inventory.read(topology.paths(self.directory).inventory)

    def measure(self, fault: str, delay_ms: float, contacts: int) -> Measured:
        """Make contacts, let a fault befall the server that is preferred, make as many again."""
        self.settle()
        puller, target = self.lab.agents[:2]
        server = self.preferred(puller)
        hedge_ms = hedge_delay_ms(status(puller), server.name)
        measured = Measured(fault, delay_ms, server.name == self.leader(), hedge_ms)
        measured.before = contacts_ms(puller, target, contacts)
        with FAULTS[fault](self.directory, self.lab, server):
            measured.after = contacts_ms(puller, target, contacts)
            if fault != "slow":
                measured.heard_s = self._heard_twice(puller, server)
        return measured

    def measure_two(self, delay_ms: float, contacts: int) -> Measured:
        """Measure the same with two servers killed, the preferred one among them."""
        self.settle()
        puller, target = self.lab.agents[:2]
        first = self.preferred(puller)
        other = next(one for one in self.lab.servers if one.name != first.name)
        hedge_ms = hedge_delay_ms(status(puller), first.name)
        led = self.leader() in (first.name, other.name)
        measured = Measured("two killed", delay_ms, led, hedge_ms)
        measured.before = contacts_ms(puller, target, contacts)
        with all_killed(self.directory, (first, other)):
            measured.after = contacts_ms(puller, target, contacts)
        return measured

    async def without_any(self, family: int, seconds: float, configured_s: float) -> Alone:
        """Kill every server: a flow that stands goes on, a new contact is refused in the end.

        ``family``: 0 for IPv4, 1 for IPv6.
        """
        await asyncio.to_thread(self.settle)
        source, target = self.lab.agents[:2]
        if first_reply_ms(source.netns, str(target.eids[family]), REPLY_S) is None:
            raise TimeoutError("no tunnel to begin with")
        with all_killed(self.directory, self.lab.servers):
            async with Flow(source.netns, target.netns, target.eids[family]) as flow:
                refused = asyncio.create_task(
                    asyncio.to_thread(refused_after_s, source, STRANGER[family], configured_s)
                )
                await asyncio.sleep(seconds)
                took = await refused
        record = flow.record
        return Alone((4, 6)[family], len(record.sent), record.lost, took, configured_s)

    # ------------------------------------------------------------------------- what is there

    def settle(self) -> None:
        """Wait until a server leads, all are fresh, and every agent has heard all of them."""
        Deadline(READY_S).wait(self._is_settled, lambda: f"servers and agents: {self.describe()}")

    def describe(self) -> str:
        """Say what servers and agents know, for an error."""
        agents = [observation.agent_status(agent.socket) for agent in self.lab.agents]
        return f"leader {self.leader()}, agents {agents}"

    def leader(self) -> str | None:
        """Return the name of the server that all the others agree on."""
        views = [server_view(one) for one in self.lab.servers]
        leaders = {None if view is None else view.get("leader") for view in views}
        return leaders.pop() if len(leaders) == 1 else None

    def preferred(self, agent: AgentEntry) -> ServerEntry:
        """Return the server that an agent asks first."""
        names = [one["name"] for one in status(agent)["servers"] if one["preferred"]]
        return self.lab.server(names[0])

    def _is_settled(self) -> bool:
        views = [server_view(one) for one in self.lab.servers]
        if self.leader() is None or any(not _all_fresh(view) for view in views):
            return False
        return all(_hears_all(agent) for agent in self.lab.agents)

    def _heard_twice(self, agent: AgentEntry, server: ServerEntry) -> tuple[float, float]:
        """Read twice how long ago a server was heard, a second and more apart."""
        first = last_heard_s(agent, server)
        end = now() + 1.0
        Deadline(5.0).wait(lambda: now() > end, lambda: "a second has gone by")
        return first, last_heard_s(agent, server)


def contacts_ms(puller: AgentEntry, target: AgentEntry, count: int) -> list[float | None]:
    """Make first contacts in a row, over IPv4 and IPv6 in turns; ms until the first reply."""
    found: list[float | None] = []
    for number in range(count):
        forget(puller, target)
        found.append(first_reply_ms(puller.netns, str(target.eids[number % 2]), REPLY_S))
    return found


def refused_after_s(source: AgentEntry, eid: str, configured_s: float) -> float | None:
    """Send one packet to a stranger; return when ping was told that it cannot be reached."""
    argv = ["ip", "netns", "exec", source.netns, "ping", "-n", "-c", "1"]
    argv += ["-W", str(int(configured_s) + 10), eid]
    began = now()
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if _UNREACHABLE.search(line):
                return now() - began
    return None


def hedge_delay_ms(told: Any, server: str) -> float:
    """Return the longest after which the others are asked, from the round trip in a status."""
    settings = Settings()
    rtt_ms = next(one["rtt_ms"] for one in told["servers"] if one["name"] == server)
    return max(settings.hedge_floor_s * 1e3, settings.hedge_rtts[1] * float(rtt_ms))


def status(agent: AgentEntry) -> Any:
    """Return an agent's status; raises UnavailableError."""
    return request(agent.socket, {"op": "status"})


def last_heard_s(agent: AgentEntry, server: ServerEntry) -> float:
    """Return how long ago an agent heard a server, as it says itself."""
    told = status(agent)["servers"]
    return float(next(one["last_heard_s"] for one in told if one["name"] == server.name))


def server_view(server: ServerEntry) -> Any:
    """Return what a server says of the cluster; None where it does not answer."""
    with suppress(UnavailableError):
        return observation.admin_get(server.admin_socket, "/v1/status")
    return None


def _all_fresh(view: Any) -> bool:
    return view is not None and all(one["fresh"] for one in view["servers"])


def _hears_all(agent: AgentEntry) -> bool:
    told = observation.agent_status(agent.socket)
    if told is None or not told["registered"]:
        return False
    heard = [one["last_heard_s"] for one in told["servers"]]
    some_preferred = any(one["preferred"] for one in told["servers"])
    return some_preferred and all(one is not None and one < 13 for one in heard)


def _worst(values: Sequence[float | None]) -> float:
    return max((value for value in values if value is not None), default=float("inf"))


def _median(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else float("inf")
