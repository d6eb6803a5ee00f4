"""Wall time, for WireGuard's sake: its handshakes carry it, and peers refuse one that went back.

A machine without a clock of its own boots into the past. Its agent waits a little for the time
to be set, before it starts a handshake that everybody would refuse.
"""

import asyncio
import time

from wgmap import clock
from wgmap.log import Log

WAIT_S = 30.0  # then it starts all the same: servers forget silent peers in the end
POLL_S = 0.25
NOTE_S = 60.0  # between two notes of the time

log = Log("agent.walltime")


def now() -> float:
    """Seconds since 1970."""
    return time.clock_gettime(time.CLOCK_REALTIME)


async def reached(last: float | None, wait_s: float = WAIT_S) -> bool:
    """Wait until the wall time is not before ``last`` (of a former run); False: it still is."""
    if last is None or now() >= last:
        return True
    behind = last - now()
    log.warning("the clock is behind the last run, waiting", behind_s=behind, at_most_s=wait_s)
    end = clock.now() + wait_s
    while now() < last:
        if clock.now() > end:
            log.warning("the clock is still behind: peers may refuse handshakes")
            return False
        await asyncio.sleep(POLL_S)
    return True
