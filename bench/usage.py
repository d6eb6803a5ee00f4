"""What processes use: processor time of all their threads, and resident memory."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from wgmap.clock import now


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one process, or of several together, so far."""

    cpu_s: float
    rss_bytes: int

    @classmethod
    def of(cls, *pids: int) -> Self:
        """Look at processes (schedstat: nanoseconds, not ticks); raises FileNotFoundError."""
        threads = (one for pid in pids for one in Path(f"/proc/{pid}/task").glob("*/schedstat"))
        cpu_s = sum(int(one.read_text().split()[0]) for one in threads) / 1e9
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
        return cls(cpu_s, pages * os.sysconf("SC_PAGE_SIZE"))


Groups = Mapping[str, tuple[int, ...]]  # a name -> the processes that are counted together


def running(*pids: int | None) -> tuple[int, ...]:
    """Return the processes of an inventory that are to be watched; AssertionError: one is gone."""
    assert None not in pids, "everything runs"
    return tuple(pid for pid in pids if pid is not None)


@dataclass(frozen=True, slots=True)
class Reading:
    """All that is watched, at one time."""

    at: float  # seconds of ``wgmap.clock``
    of: Mapping[str, Usage]

    @classmethod
    def take(cls, groups: Groups) -> Self:
        """Look at all groups."""
        return cls(now(), {name: Usage.of(*pids) for name, pids in groups.items()})

    def cpu_s(self, before: Self, name: str) -> float:
        """Return the processor time of a group since an earlier reading."""
        return self.of[name].cpu_s - before.of[name].cpu_s

    def share(self, before: Self, name: str) -> float:
        """Return the same as a share of one processor (1.0: all of it)."""
        return self.cpu_s(before, name) / (self.at - before.at)
