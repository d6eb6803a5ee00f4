"""Losing exactly those packets that a test means, and proof that they were lost.

A rule drops what arrives at an interface, before anybody inside the namespace sees it: the first
so many packets that match. It counts them, so that a fault that had no effect is noticed.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from wgmap_chaos.lab import shell

TABLE = "wgmap_losses"
_NEVER = 1 << 30  # numgen counts up to it before it begins anew


@dataclass(frozen=True, slots=True)
class Loss:
    """The first ``count`` packets that match (an nft expression) and arrive there are lost."""

    netns: str
    interface: str
    match: str
    count: int = 1


class Losses:
    """Losses that are in force."""

    def __init__(self, losses: Sequence[Loss]) -> None:
        self._losses = tuple(losses)

    def lost(self) -> list[int]:
        """Return how many packets each has taken so far; raises LabError."""
        return [_counted(loss) for loss in self._losses]

    def complete(self) -> bool:
        """Say whether each has taken all that it is for; raises LabError."""
        return self.lost() == [loss.count for loss in self._losses]

    def any(self) -> bool:
        """Say whether one of them has taken all that it is for; raises LabError."""
        counts = (loss.count for loss in self._losses)
        return any(lost == count for lost, count in zip(self.lost(), counts, strict=True))


@contextmanager
def losing(*losses: Loss) -> Iterator[Losses]:
    """Lose packets while the block runs; at most one loss an interface. Raises LabError."""
    made: list[Loss] = []
    try:
        for loss in losses:
            made.append(loss)
            _nft(loss, _script(loss))
        yield Losses(losses)
    finally:
        for loss in made:
            _nft(loss, f"add table {_table(loss)}\ndelete table {_table(loss)}\n")


def _script(loss: Loss) -> str:
    rule = f"{loss.match} numgen inc mod {_NEVER} < {loss.count} counter drop"
    return (
        f"add table {_table(loss)}\n"
        f"add chain {_table(loss)} in {{ type filter hook ingress"
        f' device "{loss.interface}" priority 0; }}\n'
        f"add rule {_table(loss)} in {rule}\n"
    )


def _table(loss: Loss) -> str:
    return f"netdev {TABLE}_{loss.interface.replace('-', '_')}"


def _nft(loss: Loss, script: str) -> None:
    shell.run(shell.inside(loss.netns, ["nft", "-f", "-"]), text=script)


def _counted(loss: Loss) -> int:
    argv = ["nft", "--json", "list", "table", *_table(loss).split()]
    listed = json.loads(shell.run(shell.inside(loss.netns, argv)))["nftables"]
    counters = [
        step["counter"]["packets"]
        for entry in listed
        for step in entry.get("rule", {}).get("expr", ())
        if "counter" in step
    ]
    return int(counters[0])
