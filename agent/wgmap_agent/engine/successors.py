"""A peer that gets another key while its old one still works: it rotates.

It has two devices meanwhile, on two ports. We initiate with the new key and go on with the old one;
when the handshake stands the prefixes go to the new key in one request. (A key that changed at the
*same* port is another matter: the old one is dead, its owner knows nobody, and what is sent to it
is held.) Until then the new key is on the device without any prefix.

Where we rotate as well both sides hear of a new key and could initiate: two initiations that cross
destroy each other. So the one with the higher new key leaves it to the other for a while.
"""

from dataclasses import dataclass

from wgmap.addresses import Endpoint
from wgmap.lisp.messages import Record
from wgmap.wg.device import PeerConfig, PeerState
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.data_peers import DataPeers
from wgmap_agent.engine.mappings import PeerOffer
from wgmap_agent.engine.peers import Peer, Phase
from wgmap_agent.engine.settings import Settings

PATIENCE = 1.5  # of the time after which one tries again: so long the other one is waited for
MOST_DOUBLED = 3  # times that this time doubles: WireGuard's own retry is as slow then
QUIET_S = 1.0  # after a new key took over; by then its owner has gone over
MAX_SUCCESSORS = 1024  # more: their old keys are dropped at once, and packets are held


@dataclass(slots=True)
class Successor:
    """A new key that does not stand yet."""

    old: PublicKey
    offer: PeerOffer
    records: tuple[Record, ...]
    since: float
    tried_at: float
    tries: int = 0
    received: int = 0  # bytes, of the last look
    answered: bool = False  # a handshake response came, so they say, since it was tried last


class Successors:
    """The new keys on the device that have no prefixes yet."""

    def __init__(self, settings: Settings, data: DataPeers) -> None:
        self._settings = settings
        self._data = data
        self._known: dict[PublicKey, Successor] = {}
        self._last_over = float("-inf")
        self.rotating: PublicKey | None = None  # our own new key while there are two

    def __contains__(self, key: object) -> bool:
        return key in self._known

    def all(self) -> tuple[Successor, ...]:
        """Return those that are tried."""
        return tuple(self._known.values())

    def take_in(
        self, now: float, offer: PeerOffer, records: tuple[Record, ...]
    ) -> tuple[PeerConfig, ...] | None:
        """Take in an offer; None where it is no rotation, else the changes to the device."""
        known = self._known.get(offer.key)
        if known is not None:
            known.offer, known.records = offer, records
            return ()
        old = self._rotating(offer)
        if old is None or len(self._known) >= MAX_SUCCESSORS:
            return None
        self._known[offer.key] = Successor(old.key, offer, records, now, now)
        return (self._config(offer, initiate=not self._waits_for(offer.key)),)

    def rotated(self) -> None:
        """Take in that we have one data device again."""
        self.rotating = None

    def is_quiet(self, now: float) -> bool:
        """Say whether a rotation of our own would disturb none of a peer.

        It does where the peer has sent to us with its new key and not seen yet that we take it.
        """
        return not self._known and now - self._last_over >= QUIET_S

    def takes_over(self, now: float, key: PublicKey) -> Successor | None:
        """As ``drop``, for one that stands."""
        self._last_over = now
        return self.drop(key)

    def drop(self, key: PublicKey) -> Successor | None:
        """Forget one; it is on the device still."""
        return self._known.pop(key, None)

    def answered(self, source: Endpoint) -> bool:
        """Say whether a handshake response may be the first one to our initiation."""
        one = next((one for one in self._known.values() if one.offer.endpoint == source), None)
        if one is None or one.answered:
            return False
        one.answered = True
        return True

    def is_over(self, now: float, one: Successor) -> bool:
        """Say whether the old key is of no use any more, or the new one does not come to stand."""
        old = self._data.peers.get(one.old)
        if old is None or old.recovery is not None:
            return True
        return now - one.since >= self._settings.succession_s

    def again(self, now: float, one: Successor, state: PeerState | None) -> tuple[PeerConfig, ...]:
        """Initiate again where nothing came back: after 5 s WireGuard itself would do so.

        Where something came the other side is at it, and to begin anew would destroy that.
        """
        if state is not None and state.rx_bytes > one.received:
            one.received, one.tried_at = state.rx_bytes, now
        if state is not None and now - one.tried_at < self._pause_s(one):
            return ()
        one.tries, one.received, one.tried_at = one.tries + 1, 0, now
        one.answered = False
        return (PeerConfig(one.offer.key, remove=True), self._config(one.offer))

    def _pause_s(self, one: Successor) -> float:
        patience = PATIENCE if self._waits_for(one.offer.key) else 1.0
        doubled: int = 1 << min(one.tries, MOST_DOUBLED)
        return self._settings.succession_kick_s * patience * doubled

    def _rotating(self, offer: PeerOffer) -> Peer | None:
        """Return the peer that an offer is a new key of, if both can live side by side."""
        claims = (self._data.table.get(one.prefix) for one in offer.prefixes)
        owners = {claim.key for claim in claims if claim is not None}
        if len(owners) != 1 or offer.key in self._data.peers:
            return None
        old = self._data.peers.get(owners.pop())
        if old is None or old.phase is not Phase.UP or old.recovery is not None:
            return None
        moved = old.endpoint is None or old.endpoint.port != offer.endpoint.port
        return old if moved else None

    def _waits_for(self, key: PublicKey) -> bool:
        return self.rotating is not None and key < self.rotating

    def _config(self, offer: PeerOffer, *, initiate: bool = True) -> PeerConfig:
        keepalive_s = self._settings.keepalive_s if initiate else None
        return PeerConfig(offer.key, offer.endpoint, (), keepalive_s)
