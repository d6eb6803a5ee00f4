"""Rotates the data key, on a schedule and on command (see ``engine.rotation`` for how).

The new key's file says that a rotation is under way, and is renamed to ``data.key`` when it is
over: an agent that is killed at any step goes on with it, or finds it done, at its next start.
"""

import asyncio
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass

from wgmap import clock
from wgmap.errors import ConflictError, WgmapError
from wgmap.log import Log
from wgmap.wg.keys import PrivateKey, PublicKey
from wgmap_agent.config import AgentConfig
from wgmap_agent.engine.rotation import Rotation
from wgmap_agent.runner import keys, walltime
from wgmap_agent.runner.arrived import Arrived
from wgmap_agent.runner.dataside import DataSide
from wgmap_agent.runner.pair import Pair

LOOK_S = 60.0  # between two looks at the age of the key
AGAIN_S = 1.0  # after a rotation that failed; twice that each time, and LOOK_S at most
BREATH_S = 0.005  # between two looks at what comes in, where nobody goes over by it
QUIET_MOST_S = 5.0  # a rotation waits so long for peers that rotate,
QUIET_LOOK_S = 0.05  # and looks so often whether they still do
SPREAD = 0.1  # of the interval: a fleet does not rotate as one

log = Log("agent.rotation")


@dataclass(frozen=True, slots=True)
class Steps:
    """What a rotation needs of the agent."""

    announce: Callable[[PublicKey, int], None]  # register the new key at its port
    registered: Callable[[], bool]
    is_quiet: Callable[[], bool]  # no peer is in the middle of a rotation of its own
    over: Callable[[], None]  # there is one data device again
    count: Callable[[str, int], None]


class Rotator:
    """Runs rotations, one at a time."""

    def __init__(self, config: AgentConfig, data: DataSide, pair: Pair, steps: Steps) -> None:
        self._directory = config.agent.state_dir
        self._own = config.agent.prefixes
        self._data = data
        self._pair = pair
        self._steps = steps
        every_s = config.data.rotate_hours * 3600  # 0: never
        self._every_s = every_s * random.uniform(1 - SPREAD, 1.0)  # noqa: S311  # jitter
        self._grace_s = config.data.rotate_grace_s
        self._asked = asyncio.Event()
        self._rotation: Rotation | None = None

    async def begin(self) -> PublicKey:
        """Begin a rotation on command; returns the new key. ConflictError: one is under way."""
        if self._rotation is not None or keys.has_next(self._directory):
            raise ConflictError("a rotation of the data key is under way")
        new = await asyncio.to_thread(keys.make_next, self._directory)
        self._asked.set()
        return new.public

    def hurry(self) -> None:
        """Look at the new device soon: a handshake has just begun there."""
        if self._rotation is not None:
            self._rotation.hurry(clock.now())

    async def run(self) -> None:
        """Rotate whenever it is time to, until cancelled; goes on with what was interrupted."""
        again = AGAIN_S
        while True:
            if not keys.has_next(self._directory):
                await self._wait()
            self._asked.clear()
            new = await asyncio.to_thread(keys.make_next, self._directory)
            try:
                await self._rotate(new)
                again = AGAIN_S
            except WgmapError as error:
                self._steps.count("rotation.failed", 1)
                log.warning("the rotation is tried again", reason=error)
                await asyncio.sleep(again)
                again = min(2 * again, LOOK_S)

    async def _wait(self) -> None:
        while not self._asked.is_set():
            age = walltime.now() - keys.made_at(self._directory)
            if self._every_s and age >= self._every_s:
                return
            left = min(LOOK_S, self._every_s - age) if self._every_s else LOOK_S
            try:
                async with asyncio.timeout(max(left, 1.0)):
                    await self._asked.wait()
            except TimeoutError:
                continue

    async def _rotate(self, new: PrivateKey) -> None:
        self._rotation = Rotation(self._grace_s)
        try:
            if not self._pair.rotating:
                half = await self._data.open_next(new)
                await self._quiet()
                peers = await self._pair.rotate_to(half)
                log.info("the data key rotates", key=new.public, peers=peers)
                self._steps.count("rotation.begun", 1)
            self._steps.announce(new.public, self._data.next_port)
            await self._switch_all(self._rotation)
            await asyncio.sleep(self._rotation.linger_s)
            await self._pair.finish()
            self._steps.over()
            await asyncio.to_thread(keys.commit_next, self._directory)
            await self._data.rotated(new)
            self._steps.count("rotation.finished", 1)
            log.info("the data key has rotated", key=new.public)
        finally:
            self._rotation = None

    async def _quiet(self) -> None:
        """Let peers end what they have begun, if that does not take long."""
        end = clock.now() + QUIET_MOST_S
        while not self._steps.is_quiet() and clock.now() < end:  # noqa: ASYNC110  # readings end it
            await asyncio.sleep(QUIET_LOOK_S)

    async def _switch_all(self, rotation: Rotation) -> None:
        """Switch peers as they become ready, until nobody is left or the grace is over."""
        with Arrived(self._pair.next_name) as arrived:
            over = False
            while not over:
                await self._listen(arrived, clock.now() + rotation.poll_s(clock.now()))
                over = await self._look(rotation)

    async def _listen(self, arrived: Arrived, until: float) -> None:
        """Switch whoever sends over the new device: it takes ours there, and may nowhere else."""
        while (left := until - clock.now()) > 0:
            keys = self._pair.waiting_at(await arrived.wait(left))
            if keys:
                await self._switch(keys)
            else:
                await asyncio.sleep(min(BREATH_S, left))

    async def _switch(self, keys: Collection[PublicKey]) -> None:
        await self._pair.switch(keys)
        self._steps.count("rotation.switched", len(keys))
        for key in keys:  # one that rotates as well may not know yet
            self._pair.show(key, self._own)

    async def _look(self, rotation: Rotation) -> bool:
        registered = self._steps.registered()
        if registered:
            self._pair.use_next()
        ahead = await self._pair.look_ahead()
        verdict = rotation.judge(
            clock.now(), ahead.state, ahead.waiting, ahead.heirs, registered=registered
        )
        if verdict.switch:
            await self._switch(verdict.switch)
        for key in ahead.heirs.difference(verdict.switch):
            self._pair.show(key, self._own)
        if verdict.over:
            self._steps.count("rotation.forced", len(ahead.waiting) - len(verdict.switch))
        return verdict.over
