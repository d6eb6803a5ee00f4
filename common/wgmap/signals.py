"""SIGTERM and SIGINT end a daemon once: whatever comes after the first changes nothing."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ENDING = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def ending(stop: Callable[[], object]) -> Iterator[None]:
    """Have ``stop`` called with the first signal that asks the program to end.

    For the last thing that a program does: further signals, and those after this block, are
    ignored until the process has ended. A daemon often gets two, one from whoever ends it and one
    from its supervisor. The second one would break its cleaning up, or, if it comes while the
    loop is closed, find the pipe gone into which asyncio has it written.
    """
    loop = asyncio.get_running_loop()

    def first() -> None:
        _ignore_more(loop)
        stop()

    for number in ENDING:
        loop.add_signal_handler(number, first)
    try:
        yield
    finally:
        _ignore_more(loop)


def _ignore_more(loop: asyncio.AbstractEventLoop) -> None:
    """Take the signals from the loop, without a moment in which they have their default effect.

    By a handler, not by SIG_IGN, which every program that is started from now on would inherit.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        for number in ENDING:
            loop.remove_signal_handler(number)
            signal.signal(number, lambda *_: None)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
