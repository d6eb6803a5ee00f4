"""What was withdrawn lately: it goes along with every push about its subject for a while.

A push replaces an earlier one about the same subject that was not acknowledged; without this
the withdrawal that the earlier one carried would be lost.
"""

from dataclasses import dataclass

from wgmap.lisp.messages import Record
from wgmap_cluster.responder.mappings import Place

KEPT_S = 120.0  # longer than any push is repeated
MAX_SUBJECTS = 4096  # the oldest makes room
MAX_EACH = 64  # records of one subject; more are left to the TTL


@dataclass(frozen=True, slots=True)
class _Withdrawal:
    record: Record
    until: float


class Withdrawals:
    """The withdrawn records of each subject."""

    def __init__(self) -> None:
        self._subjects: dict[str, dict[Place, _Withdrawal]] = {}
        self._by_place: dict[Place, set[str]] = {}

    def add(self, subject: str, place: Place, record: Record, now: float) -> None:
        """Keep a withdrawal; one of the same place stays as it was."""
        if subject not in self._subjects and len(self._subjects) >= MAX_SUBJECTS:
            oldest = next(iter(self._subjects))
            for old in list(self._subjects[oldest]):
                self._remove(oldest, old)
        places = self._subjects.setdefault(subject, {})
        if len(places) < MAX_EACH:
            places.setdefault(place, _Withdrawal(record, now + KEPT_S))
            self._by_place.setdefault(place, set()).add(subject)

    def over(self, place: Place) -> None:
        """Forget the withdrawals of a place that is mapped again."""
        for subject in list(self._by_place.get(place, ())):
            self._remove(subject, place)

    def of(self, subject: str, now: float) -> list[Record]:
        """Return what was withdrawn lately."""
        places = self._subjects.get(subject, {})
        for place in [place for place, kept in places.items() if kept.until < now]:
            self._remove(subject, place)
        return [kept.record for kept in places.values()]

    def _remove(self, subject: str, place: Place) -> None:
        places, subjects = self._subjects[subject], self._by_place[place]
        del places[place]
        subjects.discard(subject)
        if not places:
            del self._subjects[subject]
        if not subjects:
            del self._by_place[place]
