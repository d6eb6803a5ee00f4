"""Answers with authority are no older than the bound; refreshes are not old at all."""

from collections import defaultdict

from wgmap_chaos.history.history import History
from wgmap_chaos.history.records import Call, Op, Outcome
from wgmap_chaos.judges import freshness
from wgmap_chaos.judges.verdict import Verdict


def judge(history: History) -> Verdict:
    """Judge each EID by ``freshness``."""
    heard: dict[str, freshness.History] = defaultdict(freshness.History)
    ends = _revocations(history)
    owners: dict[str, str] = {}
    for call in history.of(Op.REGISTER, Outcome.OK):
        owners[call.key] = call.who
        heard[call.key].acknowledged.append(
            freshness.Acknowledged(
                call.result or 0, call.server or "", call.begun, call.ended or call.begun
            )
        )
    count = 0
    for call in (*history.of(Op.LOOKUP, Outcome.OK), *history.of(Op.REFRESH, Outcome.OK)):
        until = ends.get(owners.get(call.key, ""), float("inf"))
        if call.authoritative and (call.ended or call.begun) < until:
            heard[call.key].answered.append(_answered(call))
            count += 1
    bound = history.run.staleness_s
    broken = [f"{eid}: {text}" for eid, one in heard.items() for text in one.broken(bound)]
    return Verdict("staleness", count, "answers with authority", tuple(broken))


def _revocations(history: History) -> dict[str, float]:
    """Return when each peer's revocation was asked for: what is said later is another judge's."""
    return {call.key: call.begun for call in reversed(history.of(Op.REVOKE))}


def _answered(call: Call) -> freshness.Answered:
    return freshness.Answered(
        call.result or 0,
        call.server or "",
        call.begun,
        call.ended or call.begun,
        authoritative=True,
        refresh=call.op is Op.REFRESH,
    )
