"""Figures of a history: rates, latencies, and how long nothing worked. Pure."""

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from wgmap_chaos.history.history import History
from wgmap_chaos.history.records import Call, Fault, Flow, Op, Outcome

AFTER_S = 5.0  # a gap that begins in a fault may end so long after it
QUANTILES = (0.5, 0.9, 0.99, 1.0)
CLIENT_OPS = (Op.LOOKUP, Op.REGISTER, Op.REFRESH)


@dataclass(frozen=True, slots=True)
class Latency:
    """How long calls of one kind took, in ms."""

    op: Op
    calls: int
    unanswered: int
    quantiles_ms: tuple[float, ...]  # as QUANTILES


@dataclass(frozen=True, slots=True)
class Gap:
    """What one fault did, in seconds; None: nothing of that kind was going on."""

    fault: str
    late: float  # by so much a client began a call too late, at most: its own share of the gaps
    lookups: float | None
    registers: float | None
    refreshes: float | None
    contacts: float | None  # the slowest first contact that was begun in it; inf: one never came
    flows: float | None  # the longest run of lost packets


@dataclass(frozen=True, slots=True)
class Summary:
    """A kind of fault over all its times: (median, worst) of each gap."""

    fault: str
    times: int
    gaps: dict[str, tuple[float, float] | None]


def latencies(history: History) -> list[Latency]:
    """Return how long clients waited for answers."""
    found = []
    for op in CLIENT_OPS:
        calls = history.of(op)
        took = sorted((call.ended - call.begun) * 1e3 for call in calls if call.ended is not None)
        if took:
            quantiles = tuple(took[math.ceil(q * len(took)) - 1] for q in QUANTILES)
            found.append(Latency(op, len(calls), len(calls) - len(took), quantiles))
    return found


def rates(calls: Iterable[Call], begun: float, step_s: float) -> list[tuple[float, float]]:
    """Return (seconds since the begin, answers a second) for each step."""
    counts: dict[int, int] = defaultdict(int)
    for call in calls:
        if call.ended is not None:
            counts[int((call.ended - begun) / step_s)] += 1
    last = max(counts, default=-1)
    return [(step * step_s, counts[step] / step_s) for step in range(last + 1)]


def gaps(history: History) -> list[Gap]:
    """Return what each fault did that came alone: of two at once nobody can tell which it was."""
    answers = {op: sorted(_ends(history, op)) for op in CLIENT_OPS}
    alone = [fault for fault in history.faults if _is_alone(fault, history.faults)]
    return [_gap(history, fault, answers) for fault in alone]


def _ends(history: History, op: Op) -> Iterator[float]:
    """Yield when calls were answered: of the probes, where there were any."""
    for call in history.of(op, Outcome.OK):
        if call.ended is not None and (call.who.startswith("p") or not history.run.probes):
            yield call.ended


def _is_alone(fault: Fault, faults: Iterable[Fault]) -> bool:
    return not any(
        one.begun < fault.healed and fault.begun < one.healed for one in faults if one is not fault
    )


def _gap(history: History, fault: Fault, answers: dict[Op, list[float]]) -> Gap:
    later = (one.begun for one in history.faults if one.begun > fault.healed)
    since, until = fault.begun, min(fault.healed + AFTER_S, *later, math.inf)
    begun = [one for one in history.contacts if since <= one.begun <= fault.healed]
    slowest = [math.inf if one.took_s is None else one.took_s for one in begun]
    silences = [_silence(flow, since, until) for flow in history.flows]
    late = [one.by_s for one in history.lates if since <= one.at <= until]
    return Gap(
        fault.name,
        max(late, default=0.0),
        _longest(answers[Op.LOOKUP], since, until),
        _longest(answers[Op.REGISTER], since, until),
        _longest(answers[Op.REFRESH], since, until),
        max(slowest, default=None),
        max(silences, default=None),
    )


def _longest(times: Sequence[float], since: float, until: float) -> float | None:
    """Return the longest time without an answer that overlaps a span."""
    spans = [b - a for a, b in itertools.pairwise(times) if b > since and a < until]
    return max(spans, default=None)


def _silence(flow: Flow, since: float, until: float) -> float:
    """Return how long the longest run of lost packets is that overlaps a span, in seconds.

    Times without an echo are no measure: whoever sends may itself be kept from the processor.
    """
    longest, begun, last = 0.0, -math.inf, -math.inf
    for at in sorted(flow.lost):
        if at - last > 2 * flow.interval_s:
            begun = at
        last = at
        if last >= since and begun <= until:
            longest = max(longest, last - begun + flow.interval_s)
    return longest


def summaries(all_gaps: Iterable[Gap]) -> list[Summary]:
    """Bring the gaps of each kind of fault together, by name."""
    kinds: dict[str, list[Gap]] = defaultdict(list)
    for gap in all_gaps:
        kinds[gap.fault].append(gap)
    return [_summary(name, kinds[name]) for name in sorted(kinds)]


def _summary(name: str, found: Sequence[Gap]) -> Summary:
    summed: dict[str, tuple[float, float] | None] = {}
    for what in ("late", "lookups", "registers", "refreshes", "contacts", "flows"):
        values = [value for one in found if (value := getattr(one, what)) is not None]
        summed[what] = (statistics.median(values), max(values)) if values else None
    return Summary(name, len(found), summed)
