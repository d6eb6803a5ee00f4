"""Is there one order of all operations that explains what everybody saw? Pure and generic.

The search is that of Wing and Gong with the memory of Lowe ("Testing for linearizability", 2017):
operations are taken one by one, each as early as it may have taken effect; a place that was seen
before (what was taken, and the state after it) is not tried again.

An operation without an outcome is open at its end: it may have taken effect at any time after it
was begun, or never. A dozen of them would make too many places if each were tried everywhere; so
places that used fewer come first, and one that used more than another like it is dropped.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from heapq import heappop, heappush
from itertools import count
from typing import Generic, NamedTuple, Protocol, TypeVar

from wgmap import clock

TIMEOUT_S = 60.0
_LOOK_EVERY = 4096  # steps between two looks at the clock

InT = TypeVar("InT")
OutT = TypeVar("OutT")
InT_contra = TypeVar("InT_contra", contravariant=True)
OutT_contra = TypeVar("OutT_contra", contravariant=True)
StateT = TypeVar("StateT", bound=Hashable)
KeyT = TypeVar("KeyT", bound=Hashable)


class Finding(StrEnum):
    """What came out."""

    GOOD = "linearizable"
    BAD = "not linearizable"
    UNDECIDED = "not decided in time"


@dataclass(frozen=True, slots=True)
class Operation(Generic[InT, OutT]):
    """One call; ``ended`` None: nobody knows what came of it, and ``output`` means nothing."""

    input: InT
    output: OutT | None
    begun: float
    ended: float | None


class Model(Protocol[StateT, InT_contra, OutT_contra]):
    """What the object should do, one operation at a time."""

    @property
    def initial(self) -> StateT:
        """The state before the first operation."""
        ...

    def step(
        self, state: StateT, asked: InT_contra, answered: OutT_contra | None
    ) -> tuple[bool, StateT]:
        """Say whether an operation may be answered so, and return the state after it.

        ``answered`` None: the outcome is not known, so any answer will do.
        """
        ...


@dataclass(frozen=True, slots=True)
class Result(Generic[InT, OutT]):
    """A finding; if it is a bad one, the operation that fits nowhere (in the best attempt)."""

    finding: Finding
    culprit: Operation[InT, OutT] | None = None


def check(
    model: Model[StateT, InT, OutT],
    operations: Sequence[Operation[InT, OutT]],
    timeout_s: float = TIMEOUT_S,
    now: Callable[[], float] = clock.now,
) -> Result[InT, OutT]:
    """Check the history of one object."""
    return _Search(model, operations).run(now() + timeout_s, now)


def check_each(
    model: Model[StateT, InT, OutT],
    operations: Iterable[Operation[InT, OutT]],
    key: Callable[[Operation[InT, OutT]], KeyT],
    timeout_s: float = TIMEOUT_S,
    now: Callable[[], float] = clock.now,
) -> dict[KeyT, Result[InT, OutT]]:
    """Check objects that do not know each other, each for itself; the time is for all of them."""
    parts: dict[KeyT, list[Operation[InT, OutT]]] = defaultdict(list)
    for operation in operations:
        parts[key(operation)].append(operation)
    end = now() + timeout_s
    return {name: _Search(model, part).run(end, now) for name, part in parts.items()}


class _Place(NamedTuple, Generic[StateT]):
    """How far an attempt has come."""

    low: int  # all known operations before this one are taken
    mask: int  # bits: which of those from there on are
    state: StateT
    used: int  # bits: which of unknown outcome are


class _Search(Generic[StateT, InT, OutT]):
    def __init__(
        self, model: Model[StateT, InT, OutT], operations: Sequence[Operation[InT, OutT]]
    ) -> None:
        self._model = model
        by_begin = sorted(operations, key=lambda one: one.begun)
        self._known = [one for one in by_begin if one.ended is not None]
        self._ends = [one.ended for one in by_begin if one.ended is not None]
        self._open = [one for one in by_begin if one.ended is None]
        self._seen: dict[tuple[int, int, StateT], list[int]] = defaultdict(list)
        # The one that is furthest first, and of these the one that used the fewest of unknown
        # outcome: it makes those needless that used more for the same.
        self._heap: list[tuple[int, int, int, _Place[StateT]]] = []
        self._serial = count()

    def run(self, deadline: float, now: Callable[[], float]) -> Result[InT, OutT]:
        self._add(_Place(0, 0, self._model.initial, 0))
        furthest, culprit, steps = -1, None, 0
        while self._heap:
            steps += 1
            if steps % _LOOK_EVERY == 0 and now() > deadline:
                return Result(Finding.UNDECIDED)
            place = heappop(self._heap)[-1]
            if place.low == len(self._known):
                return Result(Finding.GOOD)
            last = self._go_on(place)
            if place.low + place.mask.bit_count() > furthest:
                furthest, culprit = place.low + place.mask.bit_count(), last
        return Result(Finding.BAD, culprit)

    def _go_on(self, place: _Place[StateT]) -> Operation[InT, OutT]:
        """Add every place that is one operation further; return which one ends first."""
        first_end, first = float("inf"), self._known[place.low]
        number = place.low
        # What may come next was begun before the first end of all that are left.
        while number < len(self._known) and self._known[number].begun <= first_end:
            if not place.mask >> (number - place.low) & 1:
                operation = self._known[number]
                self._take(place, number, operation)
                if self._ends[number] < first_end:
                    first_end, first = self._ends[number], operation
            number += 1
        for number, operation in enumerate(self._open):
            if operation.begun > first_end:
                break
            if not place.used >> number & 1:
                self._use(place, number, operation)
        return first

    def _take(self, place: _Place[StateT], number: int, operation: Operation[InT, OutT]) -> None:
        fits, state = self._model.step(place.state, operation.input, operation.output)
        if fits:
            mask = place.mask | 1 << (number - place.low)
            ones = (~mask & (mask + 1)).bit_length() - 1  # how many from the lowest on
            self._add(_Place(place.low + ones, mask >> ones, state, place.used))

    def _use(self, place: _Place[StateT], number: int, operation: Operation[InT, OutT]) -> None:
        fits, state = self._model.step(place.state, operation.input, None)
        if fits and state != place.state:  # else it may as well never have been
            self._add(place._replace(state=state, used=place.used | 1 << number))

    def _add(self, place: _Place[StateT]) -> None:
        """Keep a place unless it is known, or one that is like it and used less."""
        known = self._seen[place.low, place.mask, place.state]
        if any(less & place.used == less for less in known):
            return
        known.append(place.used)
        taken = place.low + place.mask.bit_count()
        entry = (-taken, place.used.bit_count(), next(self._serial), place)
        heappush(self._heap, entry)
