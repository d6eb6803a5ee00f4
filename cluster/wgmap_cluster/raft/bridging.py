"""Leadership moves to where everybody hears it.

A leader needs a quorum only, so it may lead for ever although another server never hears it: the
path between just these two is broken, or that server was away while the leader was added, and does
not know it. It then asks for votes, in vain, whoever it reaches, for those hear the leader. One of
them asks the leader to hand over to itself. Where that helps nobody (everybody hears only some),
the patience doubles each time.
"""

import logging

from wgmap_cluster.raft.elections import Elections
from wgmap_cluster.raft.interface import Proposal
from wgmap_cluster.raft.library import Library, now
from wgmap_cluster.raft.membership import HAND_OVER
from wgmap_cluster.raft.proposals import Proposals

log = logging.getLogger(__name__)

PATIENCE_S = 5.0
_LONGEST_S = 300.0
_FORGET_S = 600.0  # without an attempt: the first patience again
_GAP_S = 1.5  # more than between two questions of a server that hears nobody
_DEADLINE_S = 1.5


class Bridging:
    """What a follower does about a server that does not hear the leader."""

    def __init__(self, node: Library, elections: Elections, proposals: Proposals) -> None:
        self._node, self._elections, self._proposals = node, elections, proposals
        self._asking: dict[str, tuple[float, float]] = {}  # per server: since when, and last
        self._patience = PATIENCE_S
        self._tried = float("-inf")

    def asked(self, name: str) -> None:
        """Take note that ``name`` asked for a vote, because it hears no leader."""
        node, time = self._node, now()
        if node.leading or name not in node.voters() or not self._elections.leader_alive():
            self._asking.pop(name, None)
            return
        first, last = self._asking.get(name, (time, time))
        first = first if time - last <= _GAP_S else time
        self._asking[name] = (first, time)
        if time - self._tried > _FORGET_S:
            self._patience = PATIENCE_S
        if time - max(first, self._tried) >= self._patience:
            self._offer(name)

    def _offer(self, name: str) -> None:
        node = self._node
        log.warning("%s does not hear the leader, %s; asking to lead instead", name, node.leader)
        self._asking.clear()
        self._tried, self._patience = now(), min(2 * self._patience, _LONGEST_S)
        node.figures.bridged += 1
        self._proposals.add(HAND_OVER + node.name.encode(), now() + _DEADLINE_S, _told)


def _told(proposal: Proposal) -> None:
    log.info("asked to lead: %s", proposal.reason)
