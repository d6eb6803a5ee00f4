"""A whole history in memory."""

from dataclasses import dataclass, field
from typing import Any

from wgmap_chaos.history.records import (
    Call,
    Contact,
    Fault,
    Final,
    Flow,
    Late,
    Op,
    Outcome,
    Record,
    Run,
    Said,
    Sample,
    Settled,
    Vanished,
)


@dataclass
class History:
    """Records by kind, each in the order of the file."""

    runs: list[Run] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    lates: list[Late] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    flows: list[Flow] = field(default_factory=list)
    contacts: list[Contact] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    vanished: list[Vanished] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    finals: list[Final] = field(default_factory=list)
    settled: list[Settled] = field(default_factory=list)

    def add(self, record: Record) -> None:
        """Take a record in."""
        lists: dict[type, list[Any]] = {
            Run: self.runs,
            Call: self.calls,
            Late: self.lates,
            Fault: self.faults,
            Flow: self.flows,
            Contact: self.contacts,
            Sample: self.samples,
            Vanished: self.vanished,
            Said: self.said,
            Final: self.finals,
            Settled: self.settled,
        }
        lists[type(record)].append(record)

    @property
    def run(self) -> Run:
        """What was run; raises ValueError where the file does not say."""
        if not self.runs:
            msg = "a history without its first line"
            raise ValueError(msg)
        return self.runs[0]

    def of(self, op: Op, *outcomes: Outcome) -> list[Call]:
        """Return the calls of a kind, of these outcomes only (none given: of all)."""
        return [
            call
            for call in self.calls
            if call.op is op and (not outcomes or call.outcome in outcomes)
        ]
