"""How much of what is held goes to one peer at once.

A peer takes little at once: WireGuard stages 128 packets before a handshake and drops the oldest,
and a receiver in user space has a socket buffer that holds some ninety full packets (212,992 bytes
by Linux's default; a hundred that were staged and left together lost the last eight). So before
the handshake a portion goes out, and after it the rest in portions of that size, a pause apart.
"""

from collections import deque
from dataclasses import dataclass, field

from wgmap.addresses import IPAddress
from wgmap_agent.engine.flows import Flow
from wgmap_agent.engine.settings import Settings


@dataclass(slots=True)
class Outlet:
    """The flows that wait for one peer's tunnel, and what of theirs was not handed over yet."""

    settings: Settings
    flows: dict[IPAddress, Flow] = field(default_factory=dict)
    opened: bool = False  # the handshake was answered: one portion may follow another
    overflowed: bool = False  # and since then there was no room for a packet
    proved: bool = False  # the other side has shown that it has the session
    next_at: float | None = None  # when the next portion goes
    _waiting: deque[tuple[IPAddress, bytes]] = field(default_factory=deque)
    _left: int = 0

    def __post_init__(self) -> None:
        self._left = self.settings.portion

    def __len__(self) -> int:
        """Count what was not handed over yet."""
        return len(self._waiting)

    def add(self, destination: IPAddress, packets: tuple[bytes, ...]) -> None:
        """Queue packets that are held for a destination."""
        self._waiting.extend((destination, packet) for packet in packets)

    def drop(self, destination: IPAddress) -> None:
        """Forget what is queued for a destination."""
        if any(one == destination for one, _ in self._waiting):
            rest = ((one, packet) for one, packet in self._waiting if one != destination)
            self._waiting = deque(rest)

    def close(self) -> None:
        """Begin anew: the handshake does, and what was handed over is lost."""
        self.opened, self.overflowed, self.next_at = False, False, None
        self.proved = False
        self._left = self.settings.portion

    def open(self, now: float) -> None:
        """Let portions follow: the handshake is answered, and the first one on its way."""
        if not self.opened:
            self.opened = True
            self._schedule(now)

    def is_due(self, now: float) -> bool:
        """Say whether it is time for a portion."""
        return self.next_at is not None and self.next_at <= now

    def take(self, now: float) -> tuple[bytes, ...]:
        """Take what may be handed over now."""
        if self.is_due(now):
            self._left, self.next_at = self.settings.portion, None
        count = min(self._left, len(self._waiting))
        self._left -= count
        taken = tuple(self._waiting.popleft()[1] for _ in range(count))
        self._schedule(now)
        return taken

    def _schedule(self, now: float) -> None:
        if self.opened and self._waiting and self.next_at is None:
            self.next_at = now + self.settings.portion_pause_s
