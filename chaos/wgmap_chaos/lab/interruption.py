"""Signals that would end a command become errors, so that what it made is undone."""

import asyncio
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, TypeVar

from wgmap_chaos.lab.errors import LabError

T = TypeVar("T")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _interrupted(number: int) -> LabError:
    return LabError(f"interrupted by {signal.Signals(number).name}")


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise LabError where a signal comes meanwhile; not for the time of an asyncio loop."""

    def interrupt(number: int, _frame: FrameType | None) -> NoReturn:
        raise _interrupted(number)

    old = {number: signal.signal(number, interrupt) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def undisturbed() -> None:
    """Ignore the signals from now on: half undone would be worse than slow."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run on a loop of its own; a signal cancels the work, once, and then raises LabError.

    An exception out of a signal's handler would end in whatever the loop does just then.
    """
    return asyncio.run(_cancelled_by_signals(work))


async def _cancelled_by_signals(work: Coroutine[Any, Any, T]) -> T:
    loop, task, came = asyncio.get_running_loop(), asyncio.ensure_future(work), list[int]()

    def interrupt(number: int) -> None:
        if not came:  # a second one must not disturb the cleaning up
            came.append(number)
            task.cancel()

    for number in SIGNALS:
        loop.add_signal_handler(number, interrupt, number)
    try:
        return await task
    except asyncio.CancelledError as error:
        if not came:
            raise
        raise _interrupted(came[0]) from error
    finally:
        if came:
            for number in SIGNALS:
                loop.remove_signal_handler(number)
            undisturbed()
