"""The freshness lease: how long answers of this server are authoritative.

No clocks of two machines are compared. A read barrier asked for at this server's own time r
proves, once it has been passed, that all that was acknowledged before r is applied here; so
until r + staleness an answer is never older than the staleness bound.
"""

import asyncio
from collections.abc import Callable

from wgmap.clock import now
from wgmap.log import Log
from wgmap_cluster.raft.interface import ReplicatedLog

RENEWALS = 8  # of a lease within its length, and so many under way at most
_LOG = Log("replica.lease")


class LeaseKeeper:
    """Renews the lease and passes it on, in the order of the feed."""

    def __init__(
        self, log: ReplicatedLog, staleness_s: float, granted: Callable[[float], None]
    ) -> None:
        """``granted`` is called with the new end, CLOCK_BOOTTIME seconds."""
        self._log = log
        self._staleness_s = staleness_s
        self._granted = granted
        self._until = 0.0
        self._was_fresh = False

    def fresh(self) -> bool:
        """Tell whether the lease holds at this moment."""
        return now() < self._until

    def left_s(self) -> float:
        """Return for how long it holds; 0: it does not."""
        return max(0.0, self._until - now())

    async def run(self) -> None:
        """Renew until cancelled.

        Renewals overlap: each takes four times the way to a leader that is far away, and its
        lease counts from when it began.
        """
        async with asyncio.TaskGroup() as renewals:
            while True:
                renewals.create_task(self._renew())
                await asyncio.sleep(self._staleness_s / RENEWALS)

    async def _renew(self) -> None:
        until = now() + self._staleness_s
        index = await self._log.read_barrier(self._staleness_s)
        if index is not None and max(now(), self._until) < until:
            self._until = until
            self._granted(until)
        self._tell()

    def _tell(self) -> None:
        fresh = self.fresh()
        if fresh != self._was_fresh:
            self._was_fresh = fresh
            (_LOG.info if fresh else _LOG.warning)("lease " + ("held" if fresh else "lost"))
