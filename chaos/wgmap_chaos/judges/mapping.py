"""Registers and refreshes of one EID as operations on one object.

The object holds the number of the register in force: 0 before the first, and after a revocation
for ever. Registers take effect in the order of their numbers (nonces), whichever server they go
through: one that is older than what is in force changes nothing, and is answered with that.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from wgmap_chaos.history.history import History
from wgmap_chaos.history.records import Call, Op, Outcome
from wgmap_chaos.judges.linearizable import Finding, Operation, check_each
from wgmap_chaos.judges.verdict import Verdict

REVOKED = -1
TIMEOUT_S = 120.0


class Asked(NamedTuple):
    """The input of an operation."""

    op: Op
    key: str
    value: int = 0


class Mapping:
    """The object; implements ``linearizable.Model``."""

    initial = 0

    def step(self, state: int, asked: Asked, answered: int | None) -> tuple[bool, int]:
        """See above; ``answered`` is the number that the answer shows."""
        if asked.op is Op.REVOKE:
            return True, REVOKED
        if asked.op is Op.REGISTER:
            if state == REVOKED:
                return answered is None, state
            after = max(state, asked.value)
            return answered in (None, after), after
        return answered in (None, max(state, 0)), state


def judge(history: History, timeout_s: float = TIMEOUT_S) -> Verdict:
    """Judge all EIDs of clients that register."""
    operations = list(_operations(history))
    results = check_each(Mapping(), operations, lambda one: one.input.key, timeout_s)
    broken = tuple(
        f"{key}: no order explains what was seen; nothing explains {_told(result.culprit)}"
        for key, result in results.items()
        if result.finding is Finding.BAD
    )
    undecided = sum(result.finding is Finding.UNDECIDED for result in results.values())
    what = f"registers and refreshes of {len(results)} EIDs"
    return Verdict("linearizability", len(operations), what, broken, undecided)


def _operations(history: History) -> Iterator[Operation[Asked, int]]:
    eids: dict[str, set[str]] = defaultdict(set)  # of each client
    for call in history.calls:
        if call.op is Op.REGISTER and call.outcome is not Outcome.FAIL:
            eids[call.who].add(call.key)
            yield from _register(call)
        elif call.op is Op.REFRESH and call.outcome is Outcome.OK:
            yield _operation(call, Asked(call.op, call.key))
    for call in history.of(Op.REVOKE, Outcome.OK, Outcome.UNKNOWN):
        for eid in sorted(eids[call.key]):
            yield _operation(call, Asked(call.op, eid))


def _register(call: Call) -> Iterator[Operation[Asked, int]]:
    """Yield what a register does; where a later one is its answer that is a look of its own.

    It was sent more than once: a copy may have taken effect, and the answer be that to another
    copy, which came once the later register was in force.
    """
    one = _operation(call, Asked(call.op, call.key, call.value or 0))
    if one.output is None or one.output <= one.input.value:
        yield one
        return
    yield replace(one, output=None)
    yield replace(one, input=Asked(Op.REFRESH, call.key))


def _operation(call: Call, asked: Asked) -> Operation[Asked, int]:
    ended = call.ended if call.outcome is Outcome.OK else None
    return Operation(asked, call.result, call.begun, ended)


def _told(culprit: Operation[Asked, int] | None) -> str:
    if culprit is None:
        return "the first operation"
    asked = culprit.input
    value = f" {asked.value}" if asked.op is Op.REGISTER else ""
    return f"the {asked.op}{value} at {culprit.begun:.3f} answered with {culprit.output}"
