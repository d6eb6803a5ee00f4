"""Every judge, asked about one history."""

from wgmap_chaos.history.history import History
from wgmap_chaos.judges import (
    convergence,
    dataflow,
    durability,
    health,
    mapping,
    pushes,
    revocation,
    staleness,
)
from wgmap_chaos.judges.verdict import Verdict

JUDGES = (
    mapping,
    durability,
    revocation,
    staleness,
    pushes,
    dataflow,
    convergence,
    health,
)


def judge(history: History) -> list[Verdict]:
    """Return what each judge says; raises ValueError for a history without its first line."""
    return [each.judge(history) for each in JUDGES]
