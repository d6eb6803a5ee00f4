"""Who asked for a mapping is told of its change, unasked.

Judged only where nothing befell a server between the question and the end of the wait: what an
agent asked a responder for dies with it, and is asked again by agents of the real kind only.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator

from wgmap_chaos.history.history import History
from wgmap_chaos.history.records import Call, Op, Outcome
from wgmap_chaos.judges.verdict import Verdict

BEFORE_S = 1.0  # what a fault that is just being done may disturb already
AFTER_S = 10.0  # tunnels and leases come back after the heal


def judge(history: History) -> Verdict:
    """Judge every change in the calm, for everybody who had asked in the same calm."""
    told = _Told(history.of(Op.PUSHED))
    asked: dict[str, list[Call]] = defaultdict(list)
    for call in history.of(Op.LOOKUP, Outcome.OK):
        if call.authoritative and call.result:
            asked[call.key].append(call)
    calms = list(_calms(history))
    revoked = {one.key: one.begun for one in history.of(Op.REVOKE, Outcome.OK, Outcome.UNKNOWN)}
    count, broken = 0, []
    for register in history.of(Op.REGISTER, Outcome.OK):
        by = (register.ended or 0.0) + history.run.push_s
        for who, since in _waiting(register, asked[register.key], calms, history.run.push_s):
            if revoked.get(who, by) < by:
                continue  # nobody tells it anything any more
            count += 1
            if not told.by(who, register.key, register.value or 0, by):
                text = f"{who} asked for {register.key} at {since:.3f}, and was not told"
                broken.append(f"{text} of {register.value}, registered at {register.ended:.3f}")
    return Verdict("pushes", count, "changes for somebody who had asked", tuple(broken))


def _calms(history: History) -> Iterator[tuple[float, float]]:
    """Yield the times in which nothing befell a server."""
    agents = {name for flow in history.flows for name in (flow.source, flow.target)}
    since = history.run.begun
    for fault in sorted(history.faults, key=lambda one: one.begun):
        if set(fault.targets) <= agents:
            continue
        if fault.begun - BEFORE_S > since:
            yield since, fault.begun - BEFORE_S
        since = max(since, fault.healed + AFTER_S)
    yield since, float("inf")


def _waiting(
    register: Call, asked: list[Call], calms: list[tuple[float, float]], push_s: float
) -> Iterator[tuple[str, float]]:
    """Yield who had asked before a change, and when."""
    ended = register.ended or 0.0
    calm = next(
        (one for one in calms if one[0] <= register.begun and ended + push_s < one[1]), None
    )
    if calm is None or register.result != register.value:
        return
    seen: set[str] = set()
    for call in asked:
        before = calm[0] <= call.begun and (call.ended or call.begun) < register.begun
        if before and call.who != register.who and call.who not in seen:
            seen.add(call.who)
            yield call.who, call.begun


class _Told:
    """When each client was first told of what."""

    def __init__(self, pushes: list[Call]) -> None:
        self._pushes: dict[tuple[str, str], list[tuple[float, int]]] = defaultdict(list)
        for push in sorted(pushes, key=lambda one: one.begun):
            heard = self._pushes[push.who, push.key]
            best = max(push.result or 0, heard[-1][1] if heard else 0)
            heard.append((push.begun, best))

    def by(self, who: str, key: str, number: int, time: float) -> bool:
        """Tell whether somebody was told of a number, or a greater one, by then."""
        heard = self._pushes[who, key]
        before = bisect_left(heard, (time, 0))
        return before > 0 and heard[before - 1][1] >= number
