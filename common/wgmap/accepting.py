"""Listening sockets of asyncio that may run out of descriptors without a flood of log lines.

In one turn asyncio accepts as many clients as it was told that the backlog is. Where no descriptor
is left each of these attempts fails, writes an error with a traceback, and sets a timer of its own
to try again: hundreds of lines a second and a fifth of a processor (Python 3.11). Told that the
backlog is ``TURN``, it tries once a second. The kernel is told the real one afterwards.
"""

import asyncio
import socket
from collections.abc import Iterable
from typing import Any

from wgmap.log import Log

TURN = 1  # for ``backlog`` of ``create_server`` and its like
BACKLOG = 100  # asyncio's own default

log = Log("accepting")


def ready(listeners: Iterable[socket.socket], backlog: int = BACKLOG) -> None:
    """Have the kernel keep so many clients waiting for each that asyncio serves with ``TURN``.

    From then on the running loop tells in one line that a client could not be accepted.
    """
    for one in listeners:
        with one.dup() as listener:  # what asyncio shows of its own cannot listen
            listener.listen(backlog)
    asyncio.get_running_loop().set_exception_handler(_tell)


def _tell(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if isinstance(error, OSError) and "accept" in context["message"]:
        log.warning("a client cannot be accepted", reason=error.strerror or error)
    else:
        loop.default_exception_handler(context)
