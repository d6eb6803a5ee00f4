"""Answers to an operator's ``wgmap-agent resolve``; the oldest makes room."""

from dataclasses import dataclass

from wgmap.addresses import IPAddress, IPNetwork, host_prefix
from wgmap.lisp.messages import Record
from wgmap_agent.engine.requests import Answer

MAX_RESOLUTIONS = 64


@dataclass(frozen=True, slots=True)
class Resolution:
    """What the servers said of an EID; no records: none answered in time."""

    eid: IPAddress
    records: tuple[Record, ...]  # negative answers included
    authoritative: bool  # from a server in touch with the quorum

    @property
    def found(self) -> bool:
        """Say whether there is a mapping."""
        return any(record.locators and record.ttl_min for record in self.records)


class Resolutions:
    """The last answers."""

    def __init__(self) -> None:
        self._known: dict[IPNetwork, Resolution | None] = {}

    def begin(self, eid: IPAddress) -> IPNetwork:
        """Forget the last answer for an EID; return what is to be asked for."""
        target = host_prefix(eid)
        self._known.pop(target, None)
        while len(self._known) >= MAX_RESOLUTIONS:
            del self._known[next(iter(self._known))]
        self._known[target] = None
        return target

    def answered(self, answer: Answer) -> None:
        """Keep an answer that somebody asked for."""
        if answer.target in self._known:
            eid = answer.target.network_address
            self._known[answer.target] = Resolution(eid, answer.records, answer.authoritative)

    def get(self, eid: IPAddress) -> Resolution | None:
        """Return the answer; None: not there yet, or not asked for."""
        return self._known.get(host_prefix(eid))
