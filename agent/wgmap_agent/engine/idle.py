"""Whether a data peer carries data: keepalives and handshakes are subtracted from the counters."""

from dataclasses import dataclass

from wgmap.wg.device import PeerState

# WireGuard message sizes (protocol paper, section 5.4), which its counters include.
KEEPALIVE_BYTES = 32
HANDSHAKE_BYTES = 148 + 92
# A device that received data and had none to send answers with one keepalive after 10 s.
PASSIVE_KEEPALIVES = 1


@dataclass(slots=True)
class Activity:
    """What the counters of one peer showed so far. Times are the engine's ``now``."""

    read_at: float | None = None
    rx: int = 0
    tx: int = 0
    handshake: float | None = None
    data_at: float = 0.0  # when data last went either way
    heard_at: float = 0.0  # when anything authenticated last came
    unanswered_since: float | None = None  # data goes out and nothing at all comes back

    def reset(self, now: float) -> None:
        """Start anew for a peer that was just installed or kicked: its counters are 0."""
        self.read_at, self.rx, self.tx, self.handshake = now, 0, 0, None
        self.data_at, self.unanswered_since = now, None

    def observe(self, now: float, state: PeerState) -> None:
        """Take in a reading of the device."""
        if self.read_at is None or state.rx_bytes < self.rx or state.tx_bytes < self.tx:
            self._first(now, state)
            return
        got, sent = state.rx_bytes - self.rx, state.tx_bytes - self.tx
        allowance = self._allowance(now, state)
        if got > allowance or sent > allowance:
            self.data_at = now
        if got:
            self.heard_at, self.unanswered_since = now, None
        elif sent > allowance and self.unanswered_since is None:
            self.unanswered_since = self.read_at
        self._remember(now, state)

    def _first(self, now: float, state: PeerState) -> None:
        self.data_at = self.heard_at = now
        self.unanswered_since = None
        self._remember(now, state)

    def _remember(self, now: float, state: PeerState) -> None:
        self.read_at, self.rx, self.tx = now, state.rx_bytes, state.tx_bytes
        self.handshake = state.last_handshake

    def _allowance(self, now: float, state: PeerState) -> int:
        """Return how many bytes may have gone one way in this time without any data."""
        keepalives = PASSIVE_KEEPALIVES
        if state.keepalive_s and self.read_at is not None:
            keepalives += 1 + int((now - self.read_at) / state.keepalive_s)
        handshakes = HANDSHAKE_BYTES if state.last_handshake != self.handshake else 0
        return keepalives * KEEPALIVE_BYTES + handshakes
