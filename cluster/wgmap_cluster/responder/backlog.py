"""What waits while more comes in than can be served: lookups, then changes, then repetitions.

A lookup is what somebody's packets wait for. A register that says something new is what others'
packets will need. An unchanged register and a refresh are repeated by themselves, and what they
would bring is (nearly always) known. A small share goes to the later classes even in a flood that
does not end, so that nobody who lives expires by it.

Within a class the sources take turns: who sends a thousand at once waits for its own, and whoever
sends one waits for one of each at most.

What waited for too long is shed when its turn comes: who sent it has asked another server or sends
it again, and a server that serves what nobody waits for any more serves nobody in time.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from wgmap_cluster.feed import Source

MOST = 4096  # datagrams of a class; when it is full the newest is shed and counted
MOST_EACH = 512  # of these from one source, which so takes nobody's place
MAX_KNOWN = 1 << 17  # sources whose last register is remembered; the oldest makes room
LATE_S = 1.0  # a datagram that waited for longer is not served
SHARE = 16  # of so many datagrams that are served one is of a later class that waits
_NONCE = slice(4, 12)
_MAP_REQUEST, _MAP_REGISTER, _ENCAPSULATED = 1, 3, 8
_REFRESH = 0x40  # the s bit, in the second byte of a Map-Request


class Rank(Enum):
    """The classes in the order in which they are served."""

    LOOKUP = "lookup"  # and whatever else is not below
    REGISTER = "register"  # with a nonce that was not acknowledged to its source
    CONFIRMED = "confirmed"  # a refresh whose barrier came: before those that have to ask for one
    REPETITION = "repetition"  # an unchanged register, or a refresh (a Map-Request with s)


class Waiting(NamedTuple):
    """A datagram that was received."""

    data: bytes
    source: Source
    at: float  # when
    until: float | None = None  # a refresh: its barrier came, and is good until then


class Turns:
    """Datagrams of one class: each source has its own, and they take turns."""

    def __init__(self, most: int, most_each: int) -> None:
        self._most = most
        self._most_each = most_each
        self._sources: OrderedDict[str, deque[Waiting]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, waiting: Waiting) -> bool:
        """Take a datagram in; False where it does not fit."""
        address = waiting.source[0]
        own = self._sources.get(address)
        if self._count >= self._most or (own is not None and len(own) >= self._most_each):
            return False
        if own is None:
            own = self._sources[address] = deque()
        own.append(waiting)
        self._count += 1
        return True

    def take(self) -> Waiting:
        """Take the first of the source whose turn it is; KeyError where there is none."""
        address, own = self._sources.popitem(last=False)
        taken = own.popleft()
        if own:
            self._sources[address] = own
        self._count -= 1
        return taken


class Backlog:
    """Datagrams in the order in which they are to be served; bounded."""

    def __init__(self, counters: Counter[str], most: int = MOST) -> None:
        """Shed datagrams are counted as ``shed.<class>``."""
        self._counters = counters
        most_each = min(MOST_EACH, most)
        self._queues = {rank: Turns(most, most_each) for rank in Rank}
        self._acknowledged: OrderedDict[str, bytes] = OrderedDict()  # source -> last nonce
        self._turn = 0
        self._shares = 0
        self.waiting = 0  # how many

    def add(self, data: bytes, source: Source, at: float, until: float | None = None) -> None:
        """Take a datagram in, or shed it; ``at`` and ``until``: see Waiting."""
        rank = self.rank(data, source[0]) if until is None else Rank.CONFIRMED
        if self._queues[rank].add(Waiting(data, source, at, until)):
            self.waiting += 1
        else:
            self._counters[f"shed.{rank.value}"] += 1

    def take(self) -> Iterator[Waiting]:
        """Take out one after the other, those first that cannot wait."""
        while (queue := self._next()) is not None:
            self.waiting -= 1
            yield queue.take()

    def is_late(self, waiting: Waiting, now: float) -> bool:
        """Tell whether what was taken is not worth serving any more, and count it if so."""
        late = waiting.until is None and now - waiting.at > LATE_S  # a refresh has its own end
        if late:
            self._counters["shed.late"] += 1
        return late

    def rank(self, data: bytes, source: str) -> Rank:
        """Say of which class a datagram is, by its first bytes."""
        kind = data[0] >> 4 if data else 0
        if kind == _MAP_REQUEST and len(data) > 1 and data[1] & _REFRESH:
            return Rank.REPETITION
        if kind != _MAP_REGISTER:
            return Rank.LOOKUP
        known = self._acknowledged.get(source) == data[_NONCE]
        return Rank.REPETITION if known else Rank.REGISTER

    @staticmethod
    def is_lookup(data: bytes) -> bool:
        """Tell whether an answer is somebody's wait: a Map-Request without the s bit, or an ECM."""
        kind = data[0] >> 4 if data else 0
        return (kind == _MAP_REQUEST and not data[1] & _REFRESH) or kind == _ENCAPSULATED

    def acknowledged(self, source: str, notify: bytes) -> None:
        """Note the answer to a register: from now on the same again is a repetition."""
        self._acknowledged[source] = notify[_NONCE]
        self._acknowledged.move_to_end(source)
        if len(self._acknowledged) > MAX_KNOWN:
            self._acknowledged.popitem(last=False)

    def _next(self) -> Turns | None:
        waiting = [queue for queue in self._queues.values() if queue]
        if not waiting:
            return None
        self._turn = (self._turn + 1) % SHARE
        if self._turn or len(waiting) == 1:
            return waiting[0]
        self._shares += 1  # the later classes take turns
        return waiting[1 + self._shares % (len(waiting) - 1)]
