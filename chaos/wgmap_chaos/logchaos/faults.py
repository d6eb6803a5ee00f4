"""Faults: what is done, that it took effect, and that it was healed."""

import asyncio
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from random import Random

from wgmap import clock
from wgmap_chaos.faults import processes, shapes
from wgmap_chaos.faults.effect import until
from wgmap_chaos.lab.errors import LabError
from wgmap_chaos.logchaos.cluster import Cluster, ServerProcess
from wgmap_chaos.logchaos.network import Cut

HOLD_S = (0.3, 4.0)
CALM_S = (0.2, 3.0)
Fault = Callable[[], Awaitable[None]]


class Faults:
    """Chooses faults from a seed and does one after the other."""

    def __init__(self, cluster: Cluster, rng: Random) -> None:
        """Nothing happens before ``run``."""
        self._cluster, self._rng = cluster, rng
        self.done: Counter[str] = Counter()  # faults that took effect and were healed
        self._kinds: dict[str, Fault] = {
            "kill one": self._kill_one,
            "kill the leader": self._kill_leader,
            "kill a majority": self._kill_majority,
            "kill all": self._kill_all,
            "stop one": self._stop_one,
            "stop the leader": self._stop_leader,
            "cut the leader off": self._cut_leader,
            "cut one off": self._cut_one,
            "leader is deaf": self._deaf_leader,
            "leader is mute": self._mute_leader,
            "one is deaf": self._deaf_one,
            "ring": self._ring,
            "halves": self._halves,
            "cut the leader off, kill another": self._cut_and_kill,
        }

    async def run(self, seconds: float) -> None:
        """Go on for so long, each kind in turn in a new order; raises LabError.

        A fault that took no effect, or was not healed, is an error: it would prove nothing.
        """
        end = clock.now() + seconds
        for kind in self._order():
            if clock.now() >= end:
                return
            await self._kinds[kind]()
            self.done[kind] += 1
            await asyncio.sleep(self._rng.uniform(*CALM_S))

    def _order(self) -> Iterator[str]:
        while True:
            kinds = sorted(self._kinds)
            self._rng.shuffle(kinds)
            yield from kinds

    # Processes.
    async def _kill_one(self) -> None:
        await self._kill([self._one()])

    async def _kill_leader(self) -> None:
        await self._kill([await self._leader()])

    async def _kill_majority(self) -> None:
        await self._kill(self._some(len(self._servers) // 2 + 1))

    async def _kill_all(self) -> None:
        await self._kill(list(self._servers))

    async def _kill(self, servers: list[ServerProcess]) -> None:
        for server in servers:  # all at once: nobody is waited for
            server.send(signal.SIGKILL)
        for server in servers:
            await server.kill()
        await self._hold()
        for server in servers:
            await server.start()
        for server in servers:
            await until(partial(self._answers, server), "a restart")

    async def _stop_one(self) -> None:
        await self._stop(self._one())

    async def _stop_leader(self) -> None:
        await self._stop(await self._leader())

    async def _stop(self, server: ServerProcess) -> None:
        pids = [server.pid] if server.pid is not None else []
        await processes.stop(pids)
        await self._hold()
        await processes.go_on(pids)

    # Cuts.
    async def _cut_leader(self) -> None:
        await self._cut(self._around(await self._leader()))

    async def _cut_one(self) -> None:
        await self._cut(self._around(self._one()))

    async def _deaf_leader(self) -> None:
        await self._cut(shapes.deaf((await self._leader()).number, self._numbers))

    async def _mute_leader(self) -> None:
        await self._cut(shapes.mute((await self._leader()).number, self._numbers))

    async def _deaf_one(self) -> None:
        await self._cut(shapes.deaf(self._one().number, self._numbers))

    async def _ring(self) -> None:
        order = [server.number for server in self._some(len(self._servers))]
        await self._cut(shapes.ring(order))

    async def _halves(self) -> None:
        """Leave the leader in the smaller part."""
        leader = await self._leader()
        others = [server for server in self._servers if server is not leader]
        with_it = self._rng.sample(others, (len(self._servers) - 1) // 2 - 1)
        part = {leader.number, *(server.number for server in with_it)}
        await self._cut(shapes.halves(part, self._numbers))

    async def _cut_and_kill(self) -> None:
        leader = await self._leader()
        victim = self._rng.choice([each for each in self._servers if each is not leader])
        await self._cluster.network.cut(self._around(leader))
        await self._kill([victim])
        await self._cut(self._around(leader))

    async def _cut(self, cuts: set[Cut]) -> None:
        network = self._cluster.network
        await network.cut(cuts)
        await self._hold()
        # Whoever is cut off goes on sending, or dials again: every pair must have missed something.
        for pair in {frozenset(cut) for cut in cuts}:
            await until(partial(self._missed, pair), f"the cut of {sorted(pair)}")
        await network.cut(())
        for number in network.numbers:
            if await network.dropped(number):
                raise LabError(f"the cut at {number} is not healed")

    async def _missed(self, pair: frozenset[int]) -> bool:
        """Tell whether anything between two servers was dropped, at either end."""
        one, other = pair
        dropped = self._cluster.network.dropped
        return (await dropped(one)).get(other, 0) + (await dropped(other)).get(one, 0) > 0

    # Whom.
    @property
    def _servers(self) -> tuple[ServerProcess, ...]:
        return self._cluster.servers

    def _one(self) -> ServerProcess:
        return self._rng.choice(self._servers)

    def _some(self, count: int) -> list[ServerProcess]:
        return self._rng.sample(self._servers, count)

    @property
    def _numbers(self) -> tuple[int, ...]:
        return self._cluster.network.numbers

    def _around(self, server: ServerProcess) -> set[Cut]:
        return shapes.around(server.number, self._numbers)

    async def _leader(self) -> ServerProcess:
        """Wait for a leader."""
        found: list[ServerProcess] = []

        async def look() -> bool:
            leader = await self._cluster.leader()
            found[:] = [leader] if leader is not None else []
            return bool(found)

        await until(look, "a leader")
        return found[0]

    # How.
    async def _hold(self) -> None:
        await asyncio.sleep(self._rng.uniform(*HOLD_S))

    async def _answers(self, server: ServerProcess) -> bool:
        server.require_healthy()
        return await self._cluster.look(server) is not None
