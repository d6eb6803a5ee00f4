"""The last hour of a server, for who opens the page now: rates and latencies, every few seconds.

Made from what is counted anyway, as the differences between two looks at the counters.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import NoReturn

from typing_extensions import TypedDict

from wgmap.clock import now
from wgmap.metrics.families import quantile, total
from wgmap_cluster.replica.measures import INTRODUCTION, LOOKUP, SYNC
from wgmap_cluster.replica.views import CountersView

EVERY_S = 5.0
MAX_SAMPLES = 720


class Sample(TypedDict):
    """Some seconds of a server; latencies are upper bounds, null where nothing was timed."""

    number: int  # rises, also over restarts of the process, until the host boots again
    time: str
    lookups_per_s: float
    lookup_p50_s: float | None
    lookup_p99_s: float | None
    introductions_per_s: float  # the other side acknowledged that it was told who asked
    introductions_unheard_per_s: float  # given up: it never did
    introduction_p50_s: float | None  # from the answer to that acknowledgement
    introduction_p99_s: float | None
    registers_per_s: float
    sync_p99_s: float | None
    shed_per_s: float


class History:
    """Keeps samples until the process ends."""

    def __init__(self, counters: Callable[[], CountersView]) -> None:
        """``counters``: what the server counted so far."""
        self._counters = counters
        self._samples: deque[Sample] = deque(maxlen=MAX_SAMPLES)
        self._before: dict[str, int] = {}
        self._at = now()

    def samples(self, after: int | None = None) -> list[Sample]:
        """Return what there is, oldest first; or what came after the sample of a number.

        All of it where that number is ahead: the host has booted since it was given.
        """
        newest = self._samples[-1]["number"] if self._samples else 0
        if after is None or after > newest:
            return list(self._samples)
        return [one for one in self._samples if one["number"] > after]

    def prime(self, samples: Iterable[Sample]) -> None:
        """Go on from samples that somebody else took."""
        self._samples.extend(samples)

    async def run(self) -> NoReturn:
        """Take samples until cancelled."""
        self._before, self._at = self._flat(), now()
        while True:
            await asyncio.sleep(EVERY_S)
            self.take()

    def take(self) -> None:
        """Take a sample of the time since the last one."""
        after, at = self._flat(), now()
        before, took_s = self._before, max(at - self._at, 0.001)
        self._before, self._at = after, at
        # A process that was started anew counts from 0.
        new = {name: n - before.get(name, 0) for name, n in after.items()}
        new = {name: n if n >= 0 else after[name] for name, n in new.items()}
        self._samples.append(
            {
                "number": round(at * 1000),
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
                "lookups_per_s": round(new.get("request.received", 0) / took_s, 2),
                "lookup_p50_s": quantile(LOOKUP, new, 0.5),
                "lookup_p99_s": quantile(LOOKUP, new, 0.99),
                "introductions_per_s": round(total(INTRODUCTION, new) / took_s, 2),
                "introductions_unheard_per_s": round(
                    new.get("introduction.unheard", 0) / took_s, 2
                ),
                "introduction_p50_s": quantile(INTRODUCTION, new, 0.5),
                "introduction_p99_s": quantile(INTRODUCTION, new, 0.99),
                "registers_per_s": round(new.get("register.received", 0) / took_s, 2),
                "sync_p99_s": quantile(SYNC, new, 0.99),
                "shed_per_s": round(_shed(new) / took_s, 2),
            }
        )

    def _flat(self) -> dict[str, int]:
        view = self._counters()
        total: Counter[str] = Counter(view["replica"])
        total.update(view["log"])
        for each in view["responders"]:
            total.update(each)
        return dict(total)


def _shed(counted: Mapping[str, int]) -> int:
    return sum(n for name, n in counted.items() if name.startswith("shed."))
