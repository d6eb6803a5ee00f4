"""Faults: what is done, that it took effect, and that it was healed."""

import asyncio
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from random import Random

from wgmap import clock
from wgmap_chaos.lab.errors import LabError
from wgmap_chaos.logchaos.cluster import Cluster, ServerProcess
from wgmap_chaos.logchaos.network import Cut

HOLD_S = (0.3, 4.0)
CALM_S = (0.2, 3.0)
EFFECT_S = 60.0  # a busy machine starts a server slowly
POLL_S = 0.02
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
            await self._until(partial(self._answers, server), "a restart")

    async def _stop_one(self) -> None:
        await self._stop(self._one())

    async def _stop_leader(self) -> None:
        await self._stop(await self._leader())

    async def _stop(self, server: ServerProcess) -> None:
        server.send(signal.SIGSTOP)
        await self._until(lambda: _now(server.stopped()), "SIGSTOP")
        await self._hold()
        server.send(signal.SIGCONT)
        await self._until(lambda: _now(not server.stopped()), "SIGCONT")

    # Cuts.
    async def _cut_leader(self) -> None:
        await self._cut(self._around(await self._leader()))

    async def _cut_one(self) -> None:
        await self._cut(self._around(self._one()))

    async def _deaf_leader(self) -> None:
        number = (await self._leader()).number
        await self._cut({cut for cut in self._pairs() if cut[1] == number})

    async def _mute_leader(self) -> None:
        number = (await self._leader()).number
        await self._cut({cut for cut in self._pairs() if cut[0] == number})

    async def _deaf_one(self) -> None:
        number = self._one().number
        await self._cut({cut for cut in self._pairs() if cut[1] == number})

    async def _ring(self) -> None:
        """Everybody hears only its two neighbours; with three servers: two do not hear each other.

        So no server sees what all see, and majorities overlap only in part.
        """
        order = [server.number for server in self._some(len(self._servers))]
        size = len(order)
        near = {(order[i], order[(i + 1) % size]) for i in range(size - (size == 3))}
        near |= {(b, a) for a, b in near}
        await self._cut(self._pairs() - near)

    async def _halves(self) -> None:
        """Leave the leader in the smaller part."""
        leader = await self._leader()
        others = [server for server in self._servers if server is not leader]
        with_it = self._rng.sample(others, (len(self._servers) - 1) // 2 - 1)
        part = {leader.number, *(server.number for server in with_it)}
        await self._cut({(a, b) for a, b in self._pairs() if (a in part) != (b in part)})

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
            await self._until(partial(self._missed, pair), f"the cut of {sorted(pair)}")
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

    def _pairs(self) -> set[Cut]:
        numbers = self._cluster.network.numbers
        return {(a, b) for a in numbers for b in numbers if a != b}

    def _around(self, server: ServerProcess) -> set[Cut]:
        return {cut for cut in self._pairs() if server.number in cut}

    async def _leader(self) -> ServerProcess:
        """Wait for a leader."""
        found: list[ServerProcess] = []

        async def look() -> bool:
            leader = await self._cluster.leader()
            found[:] = [leader] if leader is not None else []
            return bool(found)

        await self._until(look, "a leader")
        return found[0]

    # How.
    async def _hold(self) -> None:
        await asyncio.sleep(self._rng.uniform(*HOLD_S))

    async def _answers(self, server: ServerProcess) -> bool:
        server.require_healthy()
        return await self._cluster.look(server) is not None

    @staticmethod
    async def _until(
        condition: Callable[[], Awaitable[bool]], what: str, timeout_s: float = EFFECT_S
    ) -> None:
        end = clock.now() + timeout_s
        while not await condition():
            if clock.now() >= end:
                raise LabError(f"no effect within {timeout_s:.0f} s: {what}")
            await asyncio.sleep(POLL_S)


async def _now(value: bool) -> bool:  # wraps what is known already
    return value
