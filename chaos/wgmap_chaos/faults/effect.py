"""Waiting until a fault has taken effect, or is over: what had none proves nothing."""

import asyncio
from collections.abc import Awaitable, Callable

from wgmap import clock
from wgmap_chaos.lab.errors import LabError
from wgmap_chaos.lab.waiting import time_scale

EFFECT_S = 180.0  # a busy machine starts a server slowly: 14 s and catching up were seen to take 61
POLL_S = 0.02


async def until(
    condition: Callable[[], Awaitable[bool]], what: str, timeout_s: float = EFFECT_S
) -> None:
    """Wait for a condition; raises LabError."""
    end = clock.now() + timeout_s * time_scale()
    while not await condition():
        if clock.now() >= end:
            raise LabError(f"no effect within {timeout_s:.0f} s: {what}")
        await asyncio.sleep(POLL_S)


async def until_true(condition: Callable[[], bool], what: str, timeout_s: float = EFFECT_S) -> None:
    """Wait for a condition that is cheap to look at; raises LabError."""

    async def look() -> bool:
        return condition()

    await until(look, what, timeout_s)
