"""Probes begin their calls by the clock, whatever becomes of those before."""

import asyncio
import itertools

from wgmap.clock import now
from wgmap_chaos.history.records import Call, Late, Op, Outcome, Record
from wgmap_chaos.load.probes import Metronome, identities

RATE = 50.0


def call(begun: float) -> Call:
    return Call(who="p0", op=Op.LOOKUP, key="k", outcome=Outcome.UNKNOWN, begun=begun)


async def test_a_call_that_hangs_holds_nobody_up() -> None:
    recorded: list[Record] = []
    metronome = Metronome(recorded.append)
    hung = asyncio.Event()
    begun: list[float] = []

    async def hang() -> Call:
        begun.append(now())
        if len(begun) == 10:
            metronome.stopped.set()
            hung.set()
        await hung.wait()
        return call(begun[0])

    async with asyncio.timeout(20):
        await metronome.run(Op.LOOKUP, RATE, itertools.repeat(hang))
    assert len(begun) >= 10
    assert sum(isinstance(one, Call) for one in recorded) == len(begun)


async def test_who_is_late_says_so_and_comes_up_again() -> None:
    recorded: list[Record] = []
    metronome = Metronome(recorded.append)
    count = 0

    async def busy() -> Call:
        nonlocal count
        count += 1
        if count == 3:
            end = now() + 0.2  # the loop is held up, as by a processor that others have
            while now() < end:
                pass
        if count == 30:
            metronome.stopped.set()
        return call(now())

    begun = now()
    async with asyncio.timeout(20):
        await metronome.run(Op.LOOKUP, RATE, itertools.repeat(busy))
    late = [one.by_s for one in recorded if isinstance(one, Late)]
    assert 0.1 < max(late) < 5.0
    assert now() - begun < count / RATE + 5.0  # it did not begin to count anew


def test_nobody_is_two_of_them() -> None:
    everybody = identities()
    assert len({one.eid for one in everybody}) == len({one.name for one in everybody})
    assert all(one.name.startswith("p") for one in everybody)
