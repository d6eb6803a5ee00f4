"""Tunnels that stand lose no packet while only the control plane is broken.

While the data key of one end rotates, what is on its way is lost: once, and for a moment.
"""

import math
from collections.abc import Iterator, Sequence

from wgmap_chaos.history.history import History
from wgmap_chaos.history.records import Fault, Flow, Op, Outcome
from wgmap_chaos.judges.verdict import Verdict

WAY_S = 0.5  # a packet that was sent so long before a fault may have its echo taken away by it


def judge(history: History) -> Verdict:
    """Judge every flow; what is lost in and shortly after a fault of the data plane is excused."""
    grace = history.run.data_grace_s
    excused = [(one.begun - WAY_S, one.healed + grace) for one in history.faults if one.data]
    broken = []
    for flow in history.flows:
        lost = [at for at in flow.lost if not _within(at, excused)]
        turns = _rotations(history, flow)
        for run in _runs(lost, 2 * flow.interval_s):
            gap = run[-1] - run[0] + flow.interval_s
            if gap > history.run.rotation_gap_s or not _within(run[0], turns):
                broken.append(f"{flow.name}: {len(run)} lost, {_why(run[0], history.faults)}")
    control = [fault for fault in history.faults if not fault.data]
    looked_at = sum(
        _sent_during(flow, fault, excused) for flow in history.flows for fault in control
    )
    what = "packets sent while only the control plane was broken"
    return Verdict("data flows", looked_at, what, tuple(broken))


def _runs(times: Sequence[float], apart_s: float) -> Iterator[list[float]]:
    """Yield what was lost in a row."""
    run: list[float] = []
    for at in sorted(times):
        if run and at - run[-1] > apart_s:
            yield run
            run = []
        run.append(at)
    if run:
        yield run


def _rotations(history: History, flow: Flow) -> list[tuple[float, float]]:
    """Return when the key of one of its ends rotated, or may have."""
    return [
        (turn.begun - WAY_S, math.inf if turn.ended is None else turn.ended)
        for turn in history.of(Op.ROTATE, Outcome.OK, Outcome.UNKNOWN)
        if turn.key in (flow.source, flow.target)
    ]


def _within(at: float, spans: Sequence[tuple[float, float]]) -> bool:
    return any(since <= at <= until for since, until in spans)


def _sent_during(flow: Flow, fault: Fault, excused: Sequence[tuple[float, float]]) -> int:
    since, until = max(flow.begun, fault.begun), min(flow.ended, fault.healed)
    if until <= since or _within(since, excused):
        return 0
    return int((until - since) / flow.interval_s)


def _why(at: float, faults: Sequence[Fault]) -> str:
    during = [one.name for one in faults if one.begun <= at <= one.healed]
    return f"the first at {at:.3f}, during {', '.join(during) or 'no fault at all'}"
