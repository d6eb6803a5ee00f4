"""What servers said and when, and whether that keeps the promises of freshness.

One registrar gives registers that are told apart by a rising number (the locators' port), others
ask. All times are of one clock, since all of it runs on one machine. An answer was decided after
its question was sent, so what it must reflect is judged by that moment: a pause between a server's
decision and its sending excuses nothing and breaks nothing.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A Map-Notify that came to the one who had registered ``number``."""

    number: int
    server: str
    sent: float  # the first time that this server was given it
    received: float


@dataclass(frozen=True, slots=True)
class Answered:
    """A Map-Reply to one question."""

    number: int  # of the register that it shows; 0: none
    server: str
    sent: float
    received: float
    authoritative: bool
    refresh: bool = False


@dataclass(frozen=True, slots=True)
class Cut:
    """Some servers were without a quorum from ``since`` to ``until``."""

    servers: frozenset[str]
    since: float
    until: float

    def holds(self, server: str, sent: float, received: float, bound_s: float) -> bool:
        """Say whether a whole exchange lies in the cut, the bound after its begin left out."""
        return server in self.servers and self.since + bound_s < sent and received < self.until


@dataclass(slots=True)
class History:
    """All that was heard."""

    acknowledged: list[Acknowledged] = field(default_factory=list)
    answered: list[Answered] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)

    def broken(self, staleness_s: float) -> list[str]:
        """Return every broken promise as a sentence."""
        return [
            *self._stale(staleness_s),
            *self._gone_back(),
            *self._said_when_cut(staleness_s),
        ]

    def counts(self) -> dict[str, int]:
        """Return how much of each kind there is: a history of nothing keeps every promise."""
        fresh = [one for one in self.answered if one.authoritative]
        in_cuts = [
            one
            for one in self.answered
            if any(cut.holds(one.server, one.sent, one.received, 0.0) for cut in self.cuts)
        ]
        return {
            "registers": len({one.number for one in self.acknowledged}),
            "answers": len(self.answered),
            "authoritative": len(fresh),
            "refreshes": sum(one.refresh for one in self.answered),
            "answers of servers that were cut off": len(in_cuts),
        }

    def _stale(self, staleness_s: float) -> Iterator[str]:
        newest = _Newest(self.acknowledged)
        for one in self.answered:
            if not one.authoritative:
                continue
            bound = one.sent if one.refresh else one.sent - staleness_s
            wanted = newest.before(bound)
            if one.number < wanted:
                kind = "a refresh" if one.refresh else "an answer"
                yield f"{kind} of {one.server} at {one.sent:.3f}: {one.number}, not {wanted}"

    def _gone_back(self) -> Iterator[str]:
        """Find answers with less than the same server showed before they were asked for."""
        for server in {one.server for one in self.answered}:
            mine = [one for one in self.answered if one.server == server and one.number]
            shown = _Newest(mine)
            for one in mine:
                if one.number < shown.before(one.sent):
                    yield f"{server} went back to {one.number} at {one.sent:.3f}"

    def _said_when_cut(self, bound_s: float) -> Iterator[str]:
        for cut in self.cuts:
            for one in self.answered:
                inside = cut.holds(one.server, one.sent, one.received, bound_s)
                if inside and one.authoritative:
                    yield f"{one.server} was cut off, and sure of {one.number} at {one.sent:.3f}"
            for ack in self.acknowledged:
                if cut.holds(ack.server, ack.sent, ack.received, bound_s):
                    yield f"{ack.server} was cut off, and acknowledged {ack.number}"


class _Newest:
    """The greatest number that somebody had received before a time."""

    def __init__(self, heard: Iterable[Acknowledged | Answered]) -> None:
        self._steps: list[tuple[float, int]] = [(float("-inf"), 0)]
        for one in sorted(heard, key=lambda one: one.received):
            if one.number > self._steps[-1][1]:
                self._steps.append((one.received, one.number))
        assert all(earlier <= later for (earlier, _), (later, _) in pairwise(self._steps))

    def before(self, time: float) -> int:
        low, high = 0, len(self._steps)
        while high - low > 1:
            middle = (low + high) // 2
            if self._steps[middle][0] < time:
                low = middle
            else:
                high = middle
        return self._steps[low][1]
