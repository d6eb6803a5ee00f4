"""Who initiates a handshake, who waits, and when a tunnel that does not stand is kicked.

A WireGuard peer has one handshake state, and after an initiation it sends no other for 5 s: two
initiations that cross, or one that arrives before the other side knows us, cost 5 s unless the
peer is removed and added (the kick). So one side initiates (the puller), the other only after a
fallback delay, and one side kicks. All here is decided, nothing is done.
"""

import random
from enum import Enum, auto

from wgmap.addresses import Endpoint, IPNetwork
from wgmap.wg.device import PeerConfig, PeerState
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.peers import Peer, Phase, Role
from wgmap_agent.engine.settings import Settings


class Step(Enum):
    """What is to be done about a peer whose handshake was judged."""

    WAIT = auto()  # judge again at ``check_at``
    STANDS = auto()
    START = auto()  # the other side did not initiate: we do
    KICK = auto()
    GIVE_UP = auto()


class Handshakes:
    """Judges handshakes; ``rtt`` is the estimate for the way to a peer (seconds)."""

    def __init__(self, own_key: PublicKey, settings: Settings, rng: random.Random) -> None:
        self._own_key = own_key
        self._settings = settings
        self._rng = rng

    def use_key(self, own_key: PublicKey) -> None:
        """Have this key from now on."""
        self._own_key = own_key

    def begin(self, now: float, rtt: float, peer: Peer, *, waiting: bool) -> None:
        """Set when a peer that was just installed or kicked is judged first.

        ``waiting``: packets are held for it, so it is looked at as soon as it may stand.
        """
        peer.graced = False
        if peer.phase is Phase.PASSIVE:
            peer.fallback_at = now + self.fallback(rtt)
            peer.check_at = now + self.poll(rtt) if waiting else peer.fallback_at
        else:
            peer.tried_at = now
            peer.kick_at = now + self.kick_delay(rtt, peer)
            look = now + self._settings.look_s + self._settings.look_rtts * rtt
            peer.check_at = min(look, peer.kick_at)

    def role_changed(self, rtt: float, peer: Peer) -> None:
        """Let the kick of a peer that is tried follow the role that it has only now."""
        if not peer.graced:
            peer.kick_at = peer.tried_at + self.kick_delay(rtt, peer)

    def fallback(self, rtt: float) -> float:
        """Return how long the passive side waits for the other's initiation."""
        settings = self._settings
        return settings.fallback_s + rtt + settings.fallback_jitter_s * self._rng.random()

    def poll(self, rtt: float) -> float:
        """Return how soon a peer is looked at again that packets wait for."""
        return max(self._settings.poll_s, rtt / 4)

    def kick_delay(self, rtt: float, peer: Peer) -> float:
        """Return how long an initiation is given; doubles with every kick but the first."""
        settings = self._settings
        rtts, least = settings.kick_rtts, settings.kick_s
        if peer.role is Role.BOTH_FIRST:
            rtts = settings.kick_both_rtts
        elif peer.role is Role.BOTH_SECOND:
            # The other side kicks, unless it is gone: long before, or the two kicks would cross.
            rtts, least = 2 * settings.kick_rtts, settings.kick_s + settings.second_s
        delay: float = (least + rtts * rtt) * 2 ** min(max(peer.kicks - 1, 0), 16)
        return min(delay, settings.kick_cap_s) * self._rng.uniform(1.0, 1.1)

    def crossed(self, now: float, peer: Peer) -> bool:
        """Have the lower key kick soon: a response came behind an initiation of the other side.

        WireGuard overwrote our initiation with theirs when that came, as it did over there: neither
        response is of use, and without a kick nobody sends anything for 5 s. That is certain only
        once the device has been looked at, for whoever can send from that endpoint can forge
        both; so it is done once, and what else is lost waits for its time. Returns whether the
        device is to be looked at.
        """
        if peer.kicks or self._own_key > peer.key:
            return False
        peer.graced = True
        soon = max(now + self._settings.settle_s, peer.tried_at + self._settings.flood_s)
        peer.kick_at = min(peer.kick_at, soon)
        peer.check_at = peer.kick_at
        return True

    def judge(self, now: float, rtt: float, peer: Peer, state: PeerState) -> Step:
        """Judge a peer that does not stand yet by what the device says; sets ``check_at``."""
        if state.last_handshake is not None:
            peer.check_at = None
            return Step.STANDS
        if now - peer.since >= self._settings.never_stood_s:
            return Step.GIVE_UP
        if peer.check_at is None or now < peer.check_at:
            return Step.WAIT
        came = state.rx_bytes > peer.rx_mark
        if peer.phase is Phase.PASSIVE:
            return self._passive(now, rtt, peer, came=came)
        return self._crossed(now, rtt, peer) if came else self._unheard(now, rtt, peer)

    def _passive(self, now: float, rtt: float, peer: Peer, *, came: bool) -> Step:
        """Judge one whose turn it is to initiate."""
        if now >= peer.fallback_at and not came:
            return Step.START
        if now >= peer.fallback_at:
            if peer.graced:
                return Step.KICK
            # Its initiation came, and our response or what follows was lost. After a response
            # WireGuard lets us initiate as little as after an initiation; it will kick.
            peer.graced = True
            peer.fallback_at = now + 2 * self.kick_delay(rtt, peer)
        peer.check_at = min(now + self.poll(rtt), peer.fallback_at)
        return Step.WAIT

    def _crossed(self, now: float, rtt: float, peer: Peer) -> Step:
        """Judge one that has initiated as we have: where they crossed the lower key kicks."""
        if peer.graced and now >= peer.kick_at:
            return Step.KICK
        if not peer.graced:
            peer.graced = True
            # Our response to its initiation may be on the way: do not destroy that. If it
            # answered our own, as one that is told of us late does, this is its round trip.
            peer.kick_at = now + max(rtt, now - peer.tried_at) + self._settings.poll_s
            if self._own_key > peer.key:
                peer.kick_at += 2 * self.kick_delay(rtt, peer)
        peer.check_at = min(self._again(now, rtt), peer.kick_at)
        return Step.WAIT

    def _unheard(self, now: float, rtt: float, peer: Peer) -> Step:
        """Judge one that nothing came from since we initiated."""
        if peer.role is Role.PUSHED:
            # The puller kicks, and every kick comes with a push.
            if now - peer.since >= self._settings.pushed_unheard_s:
                return Step.GIVE_UP
            peer.check_at = self._again(now, rtt)
            return Step.WAIT
        if now >= peer.kick_at:
            return Step.KICK
        peer.check_at = min(self._again(now, rtt), peer.kick_at)
        return Step.WAIT

    def _again(self, now: float, rtt: float) -> float:
        return now + max(self._settings.look_again_s, rtt / 2)


def kick(
    key: PublicKey,
    endpoint: Endpoint | None,
    prefixes: tuple[IPNetwork, ...],
    keepalive_s: int,
) -> tuple[PeerConfig, PeerConfig]:
    """Make the kick: remove and add in one request. The keepalive sends an initiation at once."""
    return (
        PeerConfig(key, remove=True),
        PeerConfig(key, endpoint, prefixes, keepalive_s),
    )
