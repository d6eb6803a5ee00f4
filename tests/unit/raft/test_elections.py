"""Who leads: votes, pre-votes, the sticky leader and handing over."""

import pytest

from support.raftrig import Rig
from wgmap_cluster.raft import bridging
from wgmap_cluster.raft.interface import Outcome, RefusedError
from wgmap_cluster.raft.messages import (
    AppendEntries,
    PreVote,
    PreVoteReply,
    RequestVote,
    TimeoutNow,
    VoteReply,
)


def test_servers_elect_one_leader_by_themselves() -> None:
    rig = Rig()
    rig.run(2.5)
    assert sorted(node.leading for node in rig.nodes.values()) == [False, False, True]
    assert len({node.leader for node in rig.nodes.values()}) == 1


def test_a_server_that_was_cut_off_disturbs_nobody() -> None:
    rig = Rig()
    leader = rig.elect("a")
    rig.isolate("c")
    term = leader.term
    rig.run(10.0)
    assert rig.nodes["c"].term == term
    rig.connect("a", "c")
    rig.connect("b", "c")
    rig.run(2.0)
    assert leader.leading
    assert {node.term for node in rig.nodes.values()} == {term}


def test_a_vote_is_kept_over_a_restart() -> None:
    rig = Rig()
    rig.time += 5
    voter = rig.nodes["b"]
    request = RequestVote(7, voter.wal.last, 0, transfer=False)
    rig.inject("a", "b", request)
    assert VoteReply(7) in rig.sent("b", "a")
    rig.crash("b")
    rig.inject("c", "b", request)
    assert VoteReply(7) not in rig.sent("b", "c")
    rig.inject("a", "b", request)
    assert VoteReply(7) in rig.sent("b", "a")  # the same vote again does no harm


def test_a_shorter_log_gets_no_vote() -> None:
    rig = Rig()
    rig.elect("a")
    rig.isolate("c")
    rig.propose("a", b"x")
    rig.run(0.2, "ab")
    rig.time += 5
    last = rig.nodes["c"].wal.last
    rig.connect("b", "c")
    request = RequestVote(9, last, rig.nodes["c"].wal.entries[-1][2], transfer=False)
    rig.inject("c", "b", request)
    assert VoteReply(9) not in rig.sent("b", "c")


def test_nobody_votes_while_a_leader_is_alive() -> None:
    rig = Rig()
    leader = rig.elect("a")
    rig.run(0.1)
    rig.isolate("c")
    rig.connect("b", "c")
    rig.frames["b", "c"].clear()
    asked = RequestVote(leader.term + 1, 1000, 1000, transfer=False)
    rig.inject("c", "b", asked)
    assert rig.nodes["b"].term == leader.term
    rig.inject("c", "b", PreVote(leader.term + 1, 1000, 1000))
    (reply,) = [m for m in rig.sent("b", "c") if isinstance(m, PreVoteReply)]
    assert not reply.granted
    rig.inject("c", "b", asked._replace(transfer=True))  # unless the leader wants it
    assert rig.nodes["b"].vote == "c"


def test_one_voter_counts_once() -> None:
    rig = Rig("abcde")
    rig.time += 5
    node = rig.nodes["a"]
    node.elections._won_question = True
    node.election_now()
    rig.tick("a")
    for _ in range(5):
        rig.inject("b", "a", VoteReply(node.term))
    assert not node.leading
    rig.inject("c", "a", VoteReply(node.term))
    assert node.leading


def test_votes_of_another_term_do_not_count() -> None:
    rig = Rig()
    rig.time += 5
    node = rig.nodes["a"]
    node.elections._won_question = True
    node.election_now()
    rig.tick("a")
    rig.inject("b", "a", VoteReply(node.term - 1))
    assert not node.leading


def test_a_leader_without_quorum_steps_down_and_has_acknowledged_nothing_since() -> None:
    rig = Rig()
    leader = rig.elect("a")
    rig.isolate("a")
    result = rig.propose("a", b"x")
    begun = rig.time
    while leader.leading:
        rig.run(0.01)
    assert rig.time - begun <= rig.settings.fallback_s + 0.05
    assert result == []


def test_a_leader_of_an_old_term_is_told() -> None:
    rig = Rig()
    leader = rig.elect("a")
    old = AppendEntries(leader.term - 1, 5, 2, 0, 2, ())
    rig.frames["b", "c"].clear()
    rig.inject("c", "b", old)
    assert rig.sent("b", "c")[-1].term == leader.term  # type: ignore[union-attr]
    assert rig.nodes["b"].leader == "a"


def test_leadership_is_handed_over_at_once() -> None:
    rig = Rig()
    leader = rig.elect("a")
    rig.propose("a", b"x")
    rig.run(0.2)
    assert leader.hand_over("b") == "b"
    rig.run(0.05)
    assert rig.nodes["b"].leading
    result = rig.propose("c", b"y")
    rig.run(0.1)
    assert result[0].outcome is Outcome.APPLIED


def test_leadership_is_not_handed_to_one_that_lags() -> None:
    rig = Rig()
    leader = rig.elect("a")
    rig.isolate("c")
    rig.run(0.2, "ab")
    with pytest.raises(RefusedError, match="c is not connected or lags far behind"):
        leader.hand_over("c")
    with pytest.raises(RefusedError, match="it does not lead; a does"):
        rig.nodes["b"].hand_over("a")


def test_only_the_leader_can_make_a_server_stand() -> None:
    rig = Rig()
    leader = rig.elect("a")
    rig.inject("c", "b", TimeoutNow(leader.term))
    rig.run(0.1)
    assert leader.leading


def test_a_successor_that_was_overtaken_leaves_the_new_leader_alone() -> None:
    """It stood again and again, as if the leader had asked for each of these elections."""
    rig = Rig()
    leader = rig.elect("a")
    rig.run(0.2)
    rig.inject("a", "b", TimeoutNow(leader.term))  # b stands, and nobody hears of it
    successor = rig.nodes["b"]
    assert successor.elections.transfer
    rig.frames["b", "a"].clear()
    rig.frames["b", "c"].clear()
    winner = rig.elect("c", "ac")
    while winner.term < successor.term:
        winner = rig.elect("a" if winner.name == "c" else "c", "ac")
    term = winner.term
    rig.run(3.0)
    assert winner.leading
    assert winner.term == term


def test_a_leader_whose_process_ends_is_replaced_sooner_than_one_that_falls_silent() -> None:
    rig = Rig()
    rig.elect("a")
    rig.run(0.2)
    for name in "bc":
        rig.disconnect(name, "a")  # both notice, as they do when a process ends
    rig.run(0.3, "bc")
    assert sum(rig.nodes[name].leading for name in "bc") == 1

    silent = Rig()
    silent.elect("a")
    silent.run(0.2)
    silent.run(0.3, "bc")
    assert not any(silent.nodes[name].leading for name in "bc")


def test_one_broken_connection_deposes_no_leader() -> None:
    rig = Rig()
    leader = rig.elect("a")
    rig.run(0.2)
    term = leader.term
    rig.disconnect("b", "a")
    rig.run(2.0)
    assert leader.leading
    assert leader.term == term


def test_leadership_moves_to_where_everybody_hears_it() -> None:
    """Only the leader and c do not reach each other: c asked for votes for ever, in vain."""
    rig = Rig()
    leader = rig.elect("a")
    rig.run(0.2)
    rig.disconnect("a", "c")
    rig.run(2.0)
    assert leader.leading  # it may pass by itself
    rig.propose("a", b"x")
    rig.run(bridging.PATIENCE_S)
    assert {node.leader for node in rig.nodes.values()} == {"b"}
    assert rig.machines["c"].commands == [b"x"]
    term = rig.nodes["b"].term
    rig.run(5.0)
    assert (rig.nodes["b"].leading, rig.nodes["b"].term) == (True, term)


def test_where_moving_helps_nobody_it_is_tried_less_and_less() -> None:
    """A ring of five: whoever leads, two servers do not hear it."""
    rig = Rig("abcde")
    for one, other in ("ac", "bd", "ce", "da", "eb"):
        rig.disconnect(one, other)
    rig.elect("a")
    rig.run(100.0)
    assert sum(node.figures.bridged for node in rig.nodes.values()) <= 20
    result = rig.propose(next(n for n, node in rig.nodes.items() if node.leading), b"x")
    rig.run(0.2)
    assert result[0].outcome is Outcome.APPLIED
