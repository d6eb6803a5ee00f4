"""Waiting on conditions in asynchronous tests."""

import asyncio
from collections.abc import Callable


async def eventually(condition: Callable[[], bool], what: str = "", deadline_s: float = 5) -> None:
    """Wait until a condition holds, looking often; AssertionError after the deadline."""
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline_s
    while not condition():  # the condition is of the world, not of a task
        assert loop.time() < end, f"not within {deadline_s} s: {what or condition}"
        await asyncio.sleep(0.001)
