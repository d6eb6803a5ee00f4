"""The loop around the engine: order, timers, back-pressure, one place to fail."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from support.eventually import eventually
from wgmap import clock
from wgmap.errors import UnavailableError, WgmapError
from wgmap_agent.engine.types import Action, Send
from wgmap_agent.runner import pump as pump_module
from wgmap_agent.runner.pump import Pump


@dataclass
class Echo:
    """An engine that sends back what it is told, and has a deadline when asked for."""

    due: float | None = None
    seen: list[str] = field(default_factory=list)

    def heard(self, now: float, thing: bytes) -> list[Action]:  # noqa: ARG002
        return [Send("ms", thing)]

    def failed(self, now: float, action: Action, error: WgmapError) -> list[Action]:  # noqa: ARG002
        return [Send("failed", str(error).encode())]

    def timer(self, now: float) -> list[Action]:  # noqa: ARG002
        self.due = None
        return [Send("timer", b"")]

    def deadline(self) -> float | None:
        return self.due


class Pipe:
    """A source: every byte written to it is one thing."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe2(os.O_NONBLOCK)
        self.error: WgmapError | None = None
        self.limits: list[int] = []

    def fileno(self) -> int:
        return self.reader

    def read(self, limit: int) -> list[bytes]:
        if self.error is not None:
            raise self.error
        data = os.read(self.reader, limit)
        self.limits.append(len(data))
        return [data[i : i + 1] for i in range(len(data))]

    def close(self) -> None:
        os.close(self.reader)
        os.close(self.writer)


@asynccontextmanager
async def running(
    pump: Pump, execute: Callable[[list[Action]], Awaitable[None]]
) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(pump.run(execute))
    await asyncio.sleep(0)
    try:
        yield task
    finally:
        pump.stop()
        await asyncio.wait([task], timeout=5)
        assert task.done()


async def test_decisions_are_executed_one_after_another_in_order() -> None:
    engine, pipe = Echo(), Pipe()
    pump = Pump(engine, clock.now)
    pump.add(pipe, engine.heard)
    done: list[Action] = []
    running_now = 0

    async def execute(actions: list[Action]) -> None:
        nonlocal running_now
        running_now += 1
        assert running_now == 1
        await asyncio.sleep(0)
        done.extend(actions)
        running_now -= 1

    async with running(pump, execute):
        os.write(pipe.writer, bytes(range(200)))
        await eventually(lambda: len(done) == 200)
    assert done == [Send("ms", bytes((i,))) for i in range(200)]
    assert max(pipe.limits) <= pump_module.PACKETS_A_TURN
    pipe.close()


async def test_inputs_rest_while_too_much_waits() -> None:
    engine, pipe = Echo(), Pipe()
    pump = Pump(engine, clock.now)
    pump.add(pipe, engine.heard)
    gate = asyncio.Event()
    done = 0

    async def execute(actions: list[Action]) -> None:
        nonlocal done
        await gate.wait()
        done += 1

    async with running(pump, execute):
        os.write(pipe.writer, b"x" * 2000)
        await eventually(lambda: sum(pipe.limits) > pump_module.BACKLOG)
        for _ in range(20):
            await asyncio.sleep(0)
        assert sum(pipe.limits) <= pump_module.BACKLOG + pump_module.PACKETS_A_TURN + 1
        gate.set()
        await eventually(lambda: done == 2000)
    pipe.close()


async def test_the_timer_comes_when_it_is_due_and_not_before() -> None:
    start = clock.now()
    engine = Echo(due=start + 0.05)
    at: list[float] = []

    async def execute(actions: list[Action]) -> None:
        at.append(clock.now() - start)

    async with running(Pump(engine, clock.now), execute):
        await eventually(lambda: bool(at))
    assert at[0] >= 0.05


async def test_a_clock_that_jumps_as_after_a_suspend_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pump_module, "LONGEST_SLEEP_S", 0.02)
    jump = 0.0
    engine = Echo(due=3600.0)
    done: list[Action] = []

    async def execute(actions: list[Action]) -> None:
        done.extend(actions)

    async with running(Pump(engine, lambda: jump), execute):
        assert done == []
        jump = 3600.0
        await eventually(lambda: done == [Send("timer", b"")])


async def test_failures_go_back_into_the_engine() -> None:
    engine = Echo()
    pump = Pump(engine, clock.now)
    done: list[Action] = []

    async def execute(actions: list[Action]) -> None:
        done.extend(actions)
        if actions == [Send("a", b"")]:
            pump.failed(actions[0], UnavailableError("gone"))

    async with running(pump, execute):
        pump.take([Send("a", b"")])
        await eventually(lambda: len(done) == 2)
    assert done[1] == Send("failed", b"gone")


async def test_a_broken_source_ends_it_with_its_error() -> None:
    engine, pipe = Echo(), Pipe()
    pump = Pump(engine, clock.now)
    pump.add(pipe, engine.heard)
    pipe.error = UnavailableError("the device was removed")
    os.write(pipe.writer, b"x")

    async def execute(actions: list[Action]) -> None:
        raise AssertionError

    with pytest.raises(UnavailableError, match="removed"):
        await asyncio.wait_for(pump.run(execute), 5)
    pipe.close()


async def test_a_bug_in_execution_is_not_swallowed() -> None:
    pump = Pump(Echo(), clock.now)

    async def execute(actions: list[Action]) -> None:
        raise KeyError("bug")

    pump.take([Send("a", b"")])
    with pytest.raises(KeyError):
        await asyncio.wait_for(pump.run(execute), 5)


async def test_what_needs_no_waiting_is_done_at_once_and_the_order_is_kept() -> None:
    """Small letters need no waiting; at once or not, the same happens in the same order."""
    lists = [b"ab", b"cD", b"e", b"Fg", b"h"]
    done: list[bytes] = []
    pump = Pump(Echo(), clock.now)

    def begin(actions: list[Action]) -> list[Action]:
        while actions and letter(actions[0]).islower():
            done.append(letter(actions[0]))
            actions = actions[1:]
        return actions

    async def execute(actions: list[Action]) -> None:
        for action in actions:
            await asyncio.sleep(0)
            done.append(letter(action))

    task = asyncio.create_task(pump.run(execute, begin))
    await pump.idle()
    for letters in lists:
        pump.take([Send("ms", bytes((one,))) for one in letters])
    assert done == [b"a", b"b", b"c"]  # the rest waits for D
    await eventually(lambda: len(done) == 8)
    assert b"".join(done) == b"".join(lists)
    pump.stop()
    await task


async def test_a_failure_while_something_is_begun_comes_behind_it() -> None:
    done: list[Action] = []
    pump = Pump(Echo(), clock.now)

    def begin(actions: list[Action]) -> list[Action]:
        if actions == [Send("a", b""), Send("b", b"")]:
            pump.failed(actions[0], UnavailableError("gone"))
        done.extend(actions)
        return []

    async def execute(actions: list[Action]) -> None:
        done.extend(actions)

    task = asyncio.create_task(pump.run(execute, begin))
    await pump.idle()
    pump.take([Send("a", b""), Send("b", b"")])
    await eventually(lambda: len(done) == 3)
    assert done == [Send("a", b""), Send("b", b""), Send("failed", b"gone")]
    pump.stop()
    await task


async def test_a_bug_in_what_is_begun_ends_it_as_well() -> None:
    pump = Pump(Echo(), clock.now)

    def begin(actions: list[Action]) -> list[Action]:
        raise KeyError(len(actions))

    async def execute(actions: list[Action]) -> None:
        raise AssertionError

    task = asyncio.create_task(pump.run(execute, begin))
    await pump.idle()
    with pytest.raises(KeyError):
        pump.take([Send("a", b"")])
    with pytest.raises(KeyError):
        await asyncio.wait_for(task, 5)


def letter(action: Action) -> bytes:
    assert isinstance(action, Send)
    return action.datagram
