"""After the last heal all is well again within the time that is promised, and the same."""

from collections.abc import Iterator

from wgmap_chaos.history.history import History
from wgmap_chaos.judges.verdict import Verdict


def judge(history: History) -> Verdict:
    """Judge what was waited for, and what the servers hold in the end."""
    looked_at = len(history.settled) if len(history.finals) == _servers(history) else 0
    what = f"things waited for at the end, and the state of {len(history.finals)} servers"
    return Verdict("convergence", looked_at, what, tuple(_broken(history)))


def _servers(history: History) -> int:
    return history.run.servers


def _broken(history: History) -> Iterator[str]:
    bound = history.run.converge_s
    for one in history.settled:
        if one.took_s is None or one.took_s > bound:
            took = "never" if one.took_s is None else f"after {one.took_s:.1f} s"
            yield f"{one.what}: {took}, {bound:g} s are promised; {one.detail}"
    states = {(final.index, final.digest) for final in history.finals}
    if len(states) > 1:
        yield f"servers differ: {[(one.server, one.index, one.digest) for one in history.finals]}"
    everybody = {eid for final in history.finals for eid in final.numbers}
    for final in history.finals:
        if unsure := sorted(everybody - final.numbers.keys()):
            yield f"{final.server} is not sure of {', '.join(unsure[:5])} ({len(unsure)} in all)"
    for final in history.finals[1:]:
        first = history.finals[0]
        for eid in first.numbers.keys() & final.numbers.keys():
            if first.numbers[eid] != final.numbers[eid]:
                mine, others = final.numbers[eid], first.numbers[eid]
                yield f"{final.server} answers {mine} for {eid}, {first.server} {others}"
