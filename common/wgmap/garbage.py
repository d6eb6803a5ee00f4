"""Cyclic garbage of a process with large tables: only what is new is looked at.

A collection that walks a hundred thousand peers stops everything for 0.3 s, and the interpreter
would start one every minute or two. What has lived until the next look here is taken out of its
sight (``gc.freeze``); what is freed by its last reference, as rows are, is freed all the same.
"""

import asyncio
import gc
from itertools import count
from typing import NoReturn

EVERY_S = 10.0


async def collect(every_s: float = EVERY_S, whole_every: int = 0) -> NoReturn:
    """Collect what is new every so often, in the interpreter's place, until cancelled.

    Each ``whole_every``-th time (0: never) all is looked at, for cycles that were alive at a look
    and died later; that is the pause that is saved otherwise.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        for turn in count(1):
            await asyncio.sleep(every_s)
            if whole_every and turn % whole_every == 0:
                gc.unfreeze()
            gc.collect()
            gc.freeze()
    finally:
        gc.enable()
    raise AssertionError("there is always another turn")
