"""The ways to a peer with several endpoints: on when one is silent, back when it returns.

Nothing but WireGuard's own packets can show that a way works, and a device sends over one. So the
first way is tried now and then: the peer answers from where it was reached, and the device takes as
endpoint whence the last packet came. What is under way on the other one puts that back, so a single
try says nothing while data flows. But an endpoint that *returns* to the first way without us, or
stays there while packets come, was set by a packet from there: the way works. Then it is set again
and again until it stays, for some round trips. (A few packets of a dense flow may circle on the
other way for longer, since each is answered the way it came; no reading shows them.) One that
never shows itself costs the packets that were sent between a few tries and what the peer sent next.
"""

from wgmap.wg.device import PeerConfig, PeerState
from wgmap_agent.engine.data_plane import DataPlane
from wgmap_agent.engine.peers import Peer, Trial, WayBack
from wgmap_agent.engine.types import Action, ConfigurePeers, Tunnel

CHANGE_AFTER_TRIES = 2  # questions for a silent peer: it may have moved, or we may have
SETS = 3  # of the first way in one trial, before anything is seen to come from there
PROBES = 16  # in a row: each is answered over the way it came, beside all that a flow has under way
LOOK_FOR = 4  # times as long as where nothing at all comes is one looked at while data flows,
HOLD_ON = 12  # and one whose way works is held on to


class Ways:
    """Chooses between the endpoints of the peers of a data plane."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane

    def silent(self, peer: Peer) -> list[Action]:
        """Go on to the next way of a peer that does not answer; empty: there is none yet."""
        tries = 0 if peer.recovery is None else peer.recovery.tries
        if tries < CHANGE_AFTER_TRIES or not self._plane.next_way(peer):
            return []
        peer.way_back = WayBack()
        return [self._set(peer)]

    def watch(self, now: float, peer: Peer) -> list[Action]:
        """Look after the way back of a peer that is heard."""
        back, state = peer.way_back, peer.state
        if len(peer.ways) < 2 or state is None:
            return []
        if back.trial is not None:
            return self._judge(now, peer, back.trial, state)
        in_use = state.endpoint if state.endpoint in peer.ways else peer.endpoint
        if in_use == peer.ways[0]:
            return []
        if back.at is None:
            back.wait = back.wait or self._plane.settings.way_back_s
            back.at = now + back.wait
        if now < back.at:
            return []
        peer.endpoint = in_use
        return self._begin(now, peer)

    def _begin(self, now: float, peer: Peer) -> list[Action]:
        self._plane.counters.add("peer.way_back_tried")
        trial = Trial(now)
        peer.way_back = WayBack(wait=peer.way_back.wait, trial=trial)
        self._plane.data.unsettle(peer)
        return self._try(peer, trial)

    def _try(self, peer: Peer, trial: Trial) -> list[Action]:
        trial.sets += 1
        trial.seen = None
        self._plane.touched(peer)
        change = PeerConfig(peer.key, peer.ways[0], update_only=True)
        probes = [action for _ in range(PROBES) for action in self._plane.probe(peer)]
        return [ConfigurePeers(Tunnel.DATA, (change,)), *probes]

    def _judge(self, now: float, peer: Peer, trial: Trial, state: PeerState) -> list[Action]:
        _note(now, peer, trial, state)
        lasts = self._plane.settings.way_trial_s + 2 * self._plane.servers.rtt()
        held = -1.0 if trial.held_since is None else now - trial.held_since
        if trial.works and held >= lasts:
            self._plane.counters.add("peer.way_back")
            peer.endpoint, peer.way_back = peer.ways[0], self._later(peer)
            return []
        passed = now - trial.since
        # Nothing comes at all, or what comes of the first way is not seen for all that comes else.
        nothing = not trial.works and held >= lasts
        if nothing or passed >= lasts * (HOLD_ON if trial.works else LOOK_FOR):
            return self._end(peer)
        if trial.held_since is not None:
            return self._plane.probe(peer)  # its answer shows that the way works, if it does
        again = trial.works or (trial.sets < SETS and passed >= lasts * trial.sets)
        return self._try(peer, trial) if again else []

    def _end(self, peer: Peer) -> list[Action]:
        """Go on with the other way."""
        peer.way_back = self._later(peer)
        return [self._set(peer)]

    def _later(self, peer: Peer) -> WayBack:
        """Wait longer for the next try, also after one that went well.

        The peer may like another way better: then both ends would change it for ever.
        """
        return WayBack(wait=min(2 * peer.way_back.wait, self._plane.settings.way_back_cap_s))

    def _set(self, peer: Peer) -> Action:
        self._plane.touched(peer)
        change = PeerConfig(peer.key, peer.endpoint, update_only=True)
        return ConfigurePeers(Tunnel.DATA, (change,))


def _note(now: float, peer: Peer, trial: Trial, state: PeerState) -> None:
    """Note what a reading shows of a trial."""
    is_first = state.endpoint == peer.ways[0]
    before, trial.seen = trial.seen, (is_first, state.rx_bytes)
    if not is_first:
        trial.held_since = None
        return
    if trial.held_since is None:
        trial.held_since = now
    if before is not None and (not before[0] or state.rx_bytes > before[1]):
        trial.works = True
