"""The agent's loop: events go into the engine, what it decides is executed one after another.

Everything happens on one thread. Inputs (TUN, control socket) are not read while more than
``BACKLOG`` decisions wait for execution: then the kernel's own queues fill, and drop the newest.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from wgmap.errors import WgmapError
from wgmap_agent.engine.types import Action

BACKLOG = 256  # action lists that may wait before inputs are left alone
RESUME = 64
PACKETS_A_TURN = 64  # so that one busy input does not hold up the others
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
# After an event the engine is asked for its deadline so much later: what an event leads to has the
# processor first, and a burst asks once. No deadline of the engine's is as near.
LOOK_S = 0.002
LONGEST_SLEEP_S = 2.0  # the loop's clock stands still while a machine is suspended, ours does not


class Engine(Protocol):
    """What the pump needs of the engine; events reach it through ``add`` and ``take``."""

    def failed(self, now: float, action: Action, error: WgmapError) -> list[Action]:
        """Take in what could not be done."""
        ...

    def timer(self, now: float) -> list[Action]:
        """Do what is due."""
        ...

    def deadline(self) -> float | None:
        """Return when ``timer`` is due (in ``now``'s seconds); None: never."""
        ...


class Source(Protocol[T_co]):
    """A descriptor with things to read, each of which is an event for the engine."""

    def fileno(self) -> int:
        """Return the descriptor."""
        ...

    def read(self, limit: int) -> Sequence[T_co]:
        """Take at most ``limit`` without waiting; raises WgmapError when the source broke."""
        ...


class Pump:
    """Feeds an engine and has its actions executed, in order."""

    def __init__(self, engine: Engine, clock: Callable[[], float]) -> None:
        """Take the engine and the clock that its ``now`` comes from (seconds)."""
        self._engine = engine
        self._clock = clock
        self._waiting: deque[list[Action]] = deque()
        self._begin: Callable[[list[Action]], list[Action]] = list
        self._busy = True  # somebody executes; nothing runs yet
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._inputs: list[tuple[int, Callable[[], None]]] = []
        self._reading = False
        self._timer: asyncio.TimerHandle | None = None  # none while nothing runs
        self._end = asyncio.Event()
        self._error: WgmapError | None = None
        self._bug: BaseException | None = None

    def add(self, source: Source[T], event: Callable[[float, T], list[Action]]) -> None:
        """Add an input before ``run``: each thing read from it is given to ``event``."""

        def readable() -> None:
            try:
                things = source.read(PACKETS_A_TURN)
            except WgmapError as error:
                self.stop(error)
                return
            for thing in things:
                self._queue(event(self._clock(), thing))
            self._look_soon()

        self._inputs.append((source.fileno(), readable))

    def leave(self, descriptor: int) -> None:
        """Read no more from an input; what comes waits in it."""
        self._inputs = [one for one in self._inputs if one[0] != descriptor]
        asyncio.get_running_loop().remove_reader(descriptor)

    def take(self, actions: list[Action]) -> None:
        """Have done what the engine has just decided, and look at its deadline again soon."""
        self._queue(actions)
        self._look_soon()

    def _queue(self, actions: list[Action]) -> None:
        """Do at once what needs no waiting, where it is its turn; queue the rest."""
        if actions and not self._busy and not self._waiting:
            actions = self._begun(actions)
            if actions:
                self._waiting.appendleft(actions)
        elif actions:
            self._waiting.append(actions)
        if self._waiting:
            self._idle.clear()
            self._work.set()
            if len(self._waiting) > BACKLOG:
                self._set_reading(wanted=False)

    def _begun(self, actions: list[Action]) -> list[Action]:
        self._busy = True  # what fails leads to more actions: they come behind these
        try:
            return self._begin(actions)
        except BaseException as error:
            self._bug = error  # ends ``run``, as one in ``execute`` does
            self._end.set()
            raise
        finally:
            self._busy = False

    async def idle(self) -> None:
        """Wait until all that was decided is executed."""
        await self._idle.wait()

    def failed(self, action: Action, error: WgmapError) -> None:
        """Tell the engine what could not be done."""
        self.take(self._engine.failed(self._clock(), action, error))

    def stop(self, error: WgmapError | None = None) -> None:
        """End ``run``, also one that has not begun; the first call's error is the one raised."""
        if not self._end.is_set():
            self._error = error
            self._end.set()

    async def run(
        self,
        execute: Callable[[list[Action]], Awaitable[None]],
        begin: Callable[[list[Action]], list[Action]] = list,
    ) -> None:
        """Pump until ``stop``; raises what it was given, and what ``execute`` raises.

        ``begin`` does the first actions of a list that need no waiting and returns the others:
        a captured packet's question is out before the loop's next turn.
        """
        self._begin = begin
        worker = asyncio.create_task(self._execute_all(execute))
        end = asyncio.create_task(self._end.wait())
        self._set_reading(wanted=True)
        self._set_timer()
        try:
            await asyncio.wait((worker, end), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._busy = True  # nobody executes any more
            self._set_reading(wanted=False)
            self._clear_timer()
            for task in (worker, end):
                task.cancel()
            results = await asyncio.gather(worker, end, return_exceptions=True)
        self._raise(results[0])

    def _raise(self, result: BaseException | bool | None) -> None:
        if isinstance(result, Exception):
            raise result
        if self._bug is not None:
            raise self._bug
        if self._error is not None:
            raise self._error

    async def _execute_all(self, execute: Callable[[list[Action]], Awaitable[None]]) -> None:
        while True:
            self._busy = False
            self._idle.set()
            await self._work.wait()
            while self._waiting:
                self._busy = True
                await execute(self._waiting.popleft())
                if len(self._waiting) < RESUME:
                    self._set_reading(wanted=True)
            self._work.clear()

    def _set_reading(self, *, wanted: bool) -> None:
        if wanted == self._reading:
            return
        self._reading = wanted
        loop = asyncio.get_running_loop()
        for descriptor, readable in self._inputs:
            if wanted:
                loop.add_reader(descriptor, readable)
            else:
                loop.remove_reader(descriptor)

    def _clear_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_soon(self) -> None:
        """Have the timer run within LOOK_S; it finds out what is due."""
        loop = asyncio.get_running_loop()
        soon = loop.time() + LOOK_S
        if self._timer is None or self._timer.when() > soon:
            self._clear_timer()
            self._timer = loop.call_at(soon, self._on_timer)

    def _set_timer(self) -> None:
        self._clear_timer()
        deadline = self._engine.deadline()
        wait = LONGEST_SLEEP_S if deadline is None else deadline - self._clock()
        wait = min(max(wait, 0.0), LONGEST_SLEEP_S)
        self._timer = asyncio.get_running_loop().call_later(wait, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self._clock()
        deadline = self._engine.deadline()
        if deadline is not None and deadline <= now:
            self._queue(self._engine.timer(now))
        self._set_timer()
