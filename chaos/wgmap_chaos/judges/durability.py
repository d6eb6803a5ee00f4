"""Nothing that was acknowledged is missing at the end, on any server."""

from collections.abc import Iterator

from wgmap_chaos.history.history import History
from wgmap_chaos.history.records import Call, Final, Op, Outcome
from wgmap_chaos.judges.verdict import Verdict


def judge(history: History) -> Verdict:
    """Judge registers, enrolments and revocations."""
    acknowledged = [
        call
        for op in (Op.REGISTER, Op.ENROL, Op.REVOKE)
        for call in history.of(op, Outcome.OK)
    ]  # fmt: skip
    broken = [text for final in history.finals for text in _missing(history, final)]
    count = len(acknowledged) if history.finals else 0
    what = f"acknowledgements, looked for on {len(history.finals)} servers"
    return Verdict("durability", count, what, tuple(broken))


def _missing(history: History, final: Final) -> Iterator[str]:
    for call in history.of(Op.ENROL, Outcome.OK):
        if call.key not in final.peers:
            yield f"{final.server}: {call.key}, enrolled at {_ended(call)}, is not there"
    for call in history.of(Op.REVOKE, Outcome.OK):
        if not final.peers.get(call.key):
            yield f"{final.server}: {call.key}, revoked at {_ended(call)}, is not revoked"
    most = newest(history)
    for eid, call in most.items():
        held = final.numbers.get(eid)
        if held is not None and held < (call.result or 0):
            text = f"{eid} has {held}, and {call.result} was acknowledged at {_ended(call)}"
            yield f"{final.server}: {text}"
    yield from _invented(history, final)


def newest(history: History) -> dict[str, Call]:
    """Return the acknowledged register with the greatest number, by EID, of unrevoked clients."""
    revoked = {call.key for call in history.of(Op.REVOKE)}
    most: dict[str, Call] = {}
    for call in history.of(Op.REGISTER, Outcome.OK):
        known = most.get(call.key)
        if call.who not in revoked and (known is None or (known.result or 0) < (call.result or 0)):
            most[call.key] = call
    return most


def _invented(history: History, final: Final) -> Iterator[str]:
    asked = {(call.key, call.value) for call in history.of(Op.REGISTER)}
    for eid, number in final.numbers.items():
        if number and (eid, number) not in asked:
            yield f"{final.server}: {eid} has {number}, which nobody registered"


def _ended(call: Call) -> str:
    return f"{call.ended:.3f}" if call.ended is not None else "?"
