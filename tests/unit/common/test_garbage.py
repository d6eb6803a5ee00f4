"""What is new is collected, what has lived is not looked at, and sometimes all is."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from support.operators import until
from wgmap import garbage


class Node:
    """A part of a cycle."""

    other: "Node"


def cycle() -> Node:
    one, other = Node(), Node()
    one.other, other.other = other, one
    return one


@asynccontextmanager
async def collecting(
    whole_every: int = 0, every_s: float = 0.01, most_new: int | None = None
) -> AsyncIterator[None]:
    task = asyncio.create_task(garbage.collect(every_s, whole_every, most_new))
    await until(lambda: not gc.isenabled())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        gc.unfreeze()
        assert gc.isenabled(), "the interpreter collects again"


async def test_a_cycle_that_is_new_is_collected() -> None:
    async with collecting():
        gone = weakref.ref(cycle())
        await until(lambda: gone() is None)


async def test_a_cycle_that_lived_is_collected_when_all_is_looked_at() -> None:
    async with collecting(whole_every=20):
        kept = cycle()
        before = gc.get_freeze_count()
        await until(lambda: gc.get_freeze_count() > before)
        gone = weakref.ref(kept)
        del kept
        assert gone() is not None
        await until(lambda: gone() is None)


async def test_what_is_much_is_collected_before_its_time() -> None:
    async with collecting(every_s=3600.0, most_new=1000):
        gone = weakref.ref(cycle())
        before = gc.get_freeze_count()
        rows = [Node() for _ in range(2000)]
        await until(lambda: gone() is None)
        await until(lambda: gc.get_freeze_count() > before + len(rows))


async def test_what_is_little_waits_for_its_time() -> None:
    async with collecting(every_s=3600.0, most_new=1_000_000):
        gone = weakref.ref(cycle())
        for _ in range(5):
            await asyncio.sleep(garbage.LOOK_S)
        assert gone() is not None


async def test_what_its_last_reference_frees_is_free_at_once_though_it_lived() -> None:
    async with collecting():
        row = Node()
        gone = weakref.ref(row)
        before = gc.get_freeze_count()
        await until(lambda: gc.get_freeze_count() > before)
        del row
        assert gone() is None
