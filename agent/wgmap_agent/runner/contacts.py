"""When the steps of the latest first contacts were done, for ``wgmap-agent trace``.

A stamp costs a microsecond and memory is bounded, so it is never switched off: what an operator
asks about has happened already.
"""

from collections.abc import Callable

from wgmap.addresses import IPAddress
from wgmap.metrics.families import Histogram
from wgmap_agent.engine.types import ContactStep, Stamp
from wgmap_agent.runner.statussocket import Json

MAX_CONTACTS = 64  # the oldest makes room

Steps = dict[ContactStep, float]


class Contacts:
    """The latest first contacts; one for a destination, the last."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Take the clock (seconds) of stamps without a time of their own."""
        self._clock = clock
        self._contacts: dict[IPAddress, Steps] = {}
        self.took = Histogram()  # from the first packet to the handshake that stands

    def stamp(self, stamp: Stamp) -> None:
        """Note that a step is done; its first time counts. CAPTURED begins a contact anew."""
        at = self._clock() if stamp.at is None else stamp.at
        for destination in stamp.destinations:
            if stamp.step is ContactStep.CAPTURED:
                self._begin(destination)
            if (steps := self._contacts.get(destination)) is not None:
                self._note(steps, stamp.step, at)

    def of(self, destination: IPAddress) -> list[tuple[ContactStep, float]]:
        """Return the steps of the last first contact with a destination, in order of time."""
        steps = self._contacts.get(destination, {})
        return sorted(steps.items(), key=lambda item: item[1])

    def steps(self, destination: IPAddress) -> list[Json]:
        """Return the same as ``of`` for the status socket: names, and seconds since boot."""
        return [{"step": step.value, "at": at} for step, at in self.of(destination)]

    def _note(self, steps: Steps, step: ContactStep, at: float) -> None:
        if step in steps:
            return
        steps[step] = at
        if step is ContactStep.STANDS and ContactStep.CAPTURED in steps:
            self.took.observe(max(0.0, at - steps[ContactStep.CAPTURED]))

    def _begin(self, destination: IPAddress) -> None:
        self._contacts.pop(destination, None)
        while len(self._contacts) >= MAX_CONTACTS:
            del self._contacts[next(iter(self._contacts))]
        self._contacts[destination] = {}
