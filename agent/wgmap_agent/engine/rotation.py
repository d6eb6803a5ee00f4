"""A rotation of the data key: when peers go over from the old data device to the new one. Pure.

A new private key ends all sessions of a device, so a second device gets it, on a port of its own.
Both have every peer. The new key is registered, the peers are told, and each starts a handshake
with the new device while packets go on over the old one. Once that stands the *peer* gives our
prefixes to the new key, and from then on takes our packets from the new device only, which it shows
by data that it sends there: then our routes to it follow. So an established flow loses what is
on its way meanwhile, and nothing else.
"""

from dataclasses import dataclass

from wgmap.wg.device import DeviceState, PeerState
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.idle import KEEPALIVE_BYTES

INITIATION_BYTES = 148
LEAST_DATA_BYTES = 80  # an echo request without content, padded: 48, and 32 around it
# A peer that shows nothing has gone over by then: it sends an echo request at once, soon again and
# every 2 s. One whose agent was ended just then has not, and takes what comes the old way still.
SETTLE_S = 12.0
# One that rotates as well takes what comes either way, and shows it with each look.
SETTLE_BOTH_S = 3.0
# The old device stays so long after the last peer: what is in queues comes in over it, and
LINGER_S = 0.5
LINGER_BOTH_S = SETTLE_BOTH_S + 1.0  # one that rotates as well may not know yet that it can go over
BUSY_S = 10.0  # after the registration, while peers are being told
HURRY_S = 1.0
POLLS_S = (0.02, 0.1, 1.0)  # a peer is going over now; peers are being told; later


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done after a look at both devices."""

    switch: tuple[PublicKey, ...]  # peers whose routes go to the new device now
    over: bool  # the old device can go, and whoever is still on it goes over


class Rotation:
    """One rotation, from its registration to the end of the old device."""

    def __init__(self, grace_s: float) -> None:
        """``grace_s``: after so long without the last peer having gone over it is over."""
        self._grace_s = grace_s
        self._registered_at: float | None = None
        self._stood: dict[PublicKey, tuple[float, int]] = {}  # since when, bytes received by then
        self._both = False
        self._hurry_until = float("-inf")

    def hurry(self, now: float) -> None:
        """Look often for a moment: an initiation has just come to the new device."""
        self._hurry_until = now + HURRY_S

    def judge(
        self,
        now: float,
        new: DeviceState,
        waiting: frozenset[PublicKey],
        heirs: frozenset[PublicKey] = frozenset(),
        *,
        registered: bool,
    ) -> Verdict:
        """Judge the peers that are on the old device still, by what the new one says of them.

        ``heirs``: those of them that rotate as well.
        """
        if registered and self._registered_at is None:
            self._registered_at = now
        self._both = self._both or bool(heirs)
        self._stood = {key: at for key, at in self._stood.items() if key in waiting}
        ready = tuple(
            key
            for key in waiting
            if (state := new.peers.get(key)) is not None
            and self._is_over(now, state, both=key in heirs)
        )
        since = self._registered_at
        nobody = len(ready) == len(waiting)
        over = since is not None and (nobody or now - since >= self._grace_s)
        return Verdict(ready, over)

    @property
    def linger_s(self) -> float:
        """How long (seconds) the old device stays when all peers have gone over."""
        return LINGER_BOTH_S if self._both else LINGER_S

    def poll_s(self, now: float) -> float:
        """Return after how long (seconds) to look again."""
        soon, told, later = POLLS_S
        last = max((at for at, _ in self._stood.values()), default=float("-inf"))
        if now < max(self._hurry_until, last + HURRY_S):
            return soon
        since = self._registered_at
        busy = self._stood or (since is not None and now - since < BUSY_S)
        return told if busy else later / 4

    def _is_over(self, now: float, state: PeerState, *, both: bool) -> bool:
        if state.last_handshake is None:
            return False
        stood, received = self._stood.setdefault(state.key, (now, state.rx_bytes))
        # Where both initiate, handshakes alone may come to more than the least.
        least = INITIATION_BYTES + KEEPALIVE_BYTES + LEAST_DATA_BYTES
        shown = state.rx_bytes - received >= LEAST_DATA_BYTES
        shown = shown or (not both and state.rx_bytes >= least)
        return shown or now - stood >= (SETTLE_BOTH_S if both else SETTLE_S)
