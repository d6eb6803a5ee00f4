"""Tables that are no longer answered from: compared with the present ones, and let go of.

Both in pieces. With a hundred thousand peers either takes longer at once than anybody may wait for
an answer. And letting go has to be done: peers and their mappings hold each other, and a process
that collects only what is new (``wgmap.garbage``) would keep every copy that it ever had.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

from wgmap_cluster.responder.effects import Effects, compare
from wgmap_cluster.responder.table import Tables

PIECE = 200  # subjects that are compared in one go: about two milliseconds
GONE = 50  # peers that are let go of in one go, with all that is theirs


class Former:
    """All tables that are to go."""

    def __init__(self) -> None:
        self._compared: deque[tuple[Tables, Iterator[str]]] = deque()  # with the subjects left
        self._going: deque[Tables] = deque()

    def __bool__(self) -> bool:
        """Whether there is anything left to do."""
        return bool(self._compared or self._going)

    def add(self, tables: Tables, subjects: Iterable[str] = ()) -> None:
        """Take tables over; ``subjects``: whom some agent was told of from them."""
        self._compared.append((tables, iter(subjects)))

    def step(self, present: Tables) -> Effects:
        """Do a piece, of what somebody waits for first; returns what is to be told for it.

        Whoever changed since the switch is told of twice at worst: it is compared with the tables
        as they are now.
        """
        while self._compared:
            former, left = self._compared[0]
            if subjects := list(islice(left, PIECE)):
                return compare(former, present, subjects)
            self._going.append(former)
            self._compared.popleft()
        # A larger piece where several wait: they may not come faster than they go.
        if self._going and not self._going[0].dismantle(GONE * len(self._going)):
            self._going.popleft()
        return Effects()
