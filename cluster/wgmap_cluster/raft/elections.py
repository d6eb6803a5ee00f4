"""Who leads: pre-vote, a sticky leader, votes, and handing leadership over.

The library stands for election whenever nothing was heard for a while, which deposes a working
leader each time a server comes back from a partition. Here a server first asks (Raft thesis, 9.6),
and neither the question nor a vote is answered while a leader is alive (4.2.3), except when that
leader itself asked for the election (3.10).
"""

from wgmap_cluster.raft.interface import Role
from wgmap_cluster.raft.library import Library, now
from wgmap_cluster.raft.messages import (
    AppendReply,
    Message,
    PreVote,
    PreVoteReply,
    RequestVote,
    TimeoutNow,
    VoteReply,
)

_LOST_S = (0.06, 0.2)  # more than a heartbeat; apart, so that one of two stands first


class Elections:
    """The election rules of one server."""

    def __init__(self, node: Library) -> None:
        self._node = node
        self.heard_leader = float("-inf")  # when a leader of the current term was last heard
        self.refused = False  # the leader said that it does not lead, and was not heard since
        self._asked_to_stand = False  # by the leader; not stood yet
        self._transfer_term = 0  # in which this server stands because the leader asked for it
        self.member = True  # whether this server may stand at all
        self._asked_term = 0
        self._granted: set[str] = set()
        self._ask_again = float("-inf")
        self._won_question = False
        self._votes: set[str] = set()

    def quorum(self, names: set[str]) -> bool:
        """Tell whether this server and ``names`` are a majority."""
        voters = self._node.voters()
        return len(names & voters) + self.member > (len(voters) + self.member) / 2

    def may_campaign(self) -> bool:
        """Tell whether to stand now; asks the others first, and is called again later."""
        if not self.member:
            return False
        if self._won_question or self._asked_to_stand or not self._node.voters():
            if self._asked_to_stand:
                self._transfer_term = self._node.term + 1
            self._won_question = self._asked_to_stand = False
            self._votes = set()
            self._node.figures.elections_stood += 1
            return True
        if now() >= self._ask_again:
            self._ask()
        return False

    def _ask(self) -> None:
        node = self._node
        node.figures.elections_asked += 1
        low = node.settings.election_min_s
        self._ask_again = now() + node.rng.uniform(0.5, 1.0) * low
        self._asked_term, self._granted = node.term + 1, set()
        question = PreVote(self._asked_term, node.wal.last, node.wal.entries[-1][2])
        for name in node.voters():
            node.send(name, question)

    @property
    def transfer(self) -> bool:
        """Whether this server stands in the present term because the leader asked it to.

        In that term only: where it does not win, it is a candidate like any other afterwards, who
        asks before it stands again.
        """
        return self._transfer_term == self._node.term

    def leader_alive(self) -> bool:
        """Tell whether a leader was heard (or this leader a quorum) within election_min_s."""
        node, since = self._node, now() - self._node.settings.election_min_s
        if node.leading:
            return self.quorum({peer.id for peer, at in node.answered.items() if at > since})
        return self.heard_leader > since

    def _up_to_date(self, last_term: int, last_index: int) -> bool:
        last = self._node.wal.entries[-1]
        return (last_term, last_index) >= (last[2], last[1])

    def observe_term(self, term: int) -> bool:
        """Follow a higher term; True if it was higher."""
        if term <= self._node.term:
            return False
        self._node.enter_term(term, None)
        self._node.follow(None)
        self._asked_to_stand = False
        return True

    def on_pre_vote(self, name: str, message: PreVote) -> None:
        """Answer yes only where a vote would be given and no leader is alive."""
        granted = (
            message.term > self._node.term
            and self._up_to_date(message.last_term, message.last_index)
            and not self.leader_alive()
        )
        self._node.send(name, PreVoteReply(self._node.term, message.term, granted))

    def on_pre_vote_reply(self, name: str, message: PreVoteReply) -> None:
        """Stand for election when a majority would vote for it."""
        node = self._node
        if not message.granted:
            self.observe_term(message.term)
            return
        if node.leading or message.asked != self._asked_term or self._asked_term != node.term + 1:
            return
        self._granted.add(name)
        if self.quorum(self._granted):
            self._asked_term = 0
            self._won_question = True
            node.election_now()

    def on_request_vote(self, name: str, message: RequestVote) -> None:
        """Vote once in a term; durable before the reply leaves."""
        node = self._node
        if message.term > node.term:
            if self.leader_alive() and not message.transfer:
                return
            self.observe_term(message.term)
        if message.term < node.term or node.leading or node.vote not in (None, name):
            return
        if not self._up_to_date(message.last_term, message.last_index):
            return
        node.enter_term(node.term, name)
        node.postpone_election()
        node.send(name, VoteReply(node.term))

    def on_vote(self, name: str, message: VoteReply) -> None:
        """Count each voter once; the library counted each reply."""
        node = self._node
        if message.term != node.term or node.role is not Role.CANDIDATE:
            return
        self._votes.add(name)
        if self.quorum(self._votes):
            node.lead()

    def heard(self, leader: str, term: int) -> None:
        """Follow the leader of ``term``, which is not below the current one."""
        node = self._node
        self.observe_term(term)
        self.heard_leader = now()
        self.refused = False
        if not self._asked_to_stand:
            node.postpone_election()
        node.follow(leader)

    def lost_leader(self) -> None:
        """Ask soon: the connection to the leader broke, so most likely its process has ended.

        Only a question: a majority must have lost it, too. A leader that is alive is heard again
        with the next heartbeat, and that puts the question off.
        """
        self.heard_leader = float("-inf")
        self._node.hasten_election(self._node.rng.uniform(*_LOST_S))

    def on_timeout_now(self, name: str, message: TimeoutNow) -> None:
        """Stand at once, because the leader wants to hand over."""
        node = self._node
        if message.term == node.term and name == node.leader and self.member:
            self._asked_to_stand = True
            node.election_now()

    def refuse_old_leader(self, name: str, round_number: int) -> None:
        """Tell a leader of an old term the new one, so that it steps down."""
        reply: Message = AppendReply(self._node.term, round_number, success=False, at=0)
        self._node.send(name, reply)
