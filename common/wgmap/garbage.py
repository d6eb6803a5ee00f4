"""Cyclic garbage of a process with large tables: only what is new is looked at.

A collection that walks a hundred thousand peers stops everything for 0.3 s, and the interpreter
would start one every minute or two. What has lived until the next look here is taken out of its
sight (``gc.freeze``); what is freed by its last reference, as rows are, is freed all the same.
"""

import asyncio
import gc
from itertools import count
from typing import NoReturn

from wgmap.clock import now

EVERY_S = 10.0
LOOK_S = 0.05  # how often it is looked whether much is new


async def collect(
    every_s: float = EVERY_S, whole_every: int = 0, most_new: int | None = None
) -> NoReturn:
    """Collect what is new every so often, in the interpreter's place, until cancelled.

    With ``most_new`` also as soon as so many more objects are there than at the last look: it takes
    a microsecond for each that is new, and a table that is filled has them all in one second. Each
    ``whole_every``-th ``every_s`` (0: never) all is looked at, for cycles that were alive at a look
    and died later; that is the pause that is saved otherwise.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        for turn in count(1):
            await _turn(every_s, most_new)
            if whole_every and turn % whole_every == 0:
                gc.unfreeze()
            _look()
    finally:
        gc.enable()
    raise AssertionError("there is always another turn")


async def _turn(every_s: float, most_new: int | None) -> None:
    if most_new is None:
        await asyncio.sleep(every_s)
        return
    end = now() + every_s
    while (left := end - now()) > 0:
        await asyncio.sleep(min(left, LOOK_S))
        if gc.get_count()[0] > most_new:
            _look()


def _look() -> None:
    gc.collect()
    gc.freeze()
