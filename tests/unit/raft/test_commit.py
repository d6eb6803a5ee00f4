"""What a leader sends before its own sync, and what it counts as committed."""

import pytest

from support.raftrig import Rig
from support.simdisk import PowerLossError
from wgmap_cluster.raft.codec import encode
from wgmap_cluster.raft.interface import Outcome
from wgmap_cluster.raft.messages import AppendEntries, AppendReply, Message


def with_entries(messages: list[Message]) -> list[AppendEntries]:
    return [m for m in messages if isinstance(m, AppendEntries) and m.entries]


def test_entries_leave_before_the_leaders_sync_and_nothing_else_does() -> None:
    rig = Rig()
    leader = rig.elect("a")
    rig.run(0.1)
    ended = rig.propose("a", b"x")
    forwarded = rig.propose("b", b"y")
    rig.tick("b")
    rig.disks["a"].power_lost_in = 0
    with pytest.raises(PowerLossError):
        rig.deliver("b", "a")
    ahead = with_entries(rig.sent("a", "c"))
    assert [entry[0][1:] for message in ahead for entry in message.entries] == [b"y", b"x"]
    assert {type(message) for message in rig.sent("a", "b")} == {AppendEntries}
    assert leader.wal.synced < leader.wal.last
    assert ended == forwarded == []


def test_a_leader_that_dies_before_its_sync_may_have_sent_what_then_holds() -> None:
    """The others have it: they may keep it; it forgets it, and never leads that term again."""
    rig = Rig()
    rig.elect("a")
    rig.run(0.1)
    ended = rig.propose("a", b"x")
    rig.disks["a"].power_lost_in = 0
    with pytest.raises(PowerLossError):
        rig.tick("a")
    for name in "bc":
        rig.deliver("a", name)
    term, last = rig.nodes["a"].term, rig.nodes["b"].wal.last
    again = rig.crash("a")
    assert (again.term, again.vote, again.wal.last) == (term, "a", last - 1)
    rig.elect("b")
    rig.run(0.2)
    assert {tuple(machine.commands) for machine in rig.machines.values()} == {(b"x",)}
    assert ended == []


def test_a_follower_acknowledges_only_what_is_on_its_disk() -> None:
    rig = Rig()
    rig.elect("a")
    rig.run(0.1)
    ended = rig.propose("a", b"x")
    rig.tick("a")
    for name in "bc":
        rig.disks[name].power_lost_in = 0
        with pytest.raises(PowerLossError):
            rig.deliver("a", name)
        assert rig.sent(name, "a") == []
    rig.tick("a")
    assert ended == []


def test_an_entry_of_an_earlier_term_is_not_committed_by_counting() -> None:
    """Raft, figure 8: a majority has it, and a server with a later term could still replace it."""
    rig = Rig("abcde")
    rig.elect("a")
    rig.run(0.1)
    rig.isolate("a")
    rig.propose("a", b"old")
    rig.tick("a")
    old = rig.nodes["a"].wal.last
    rig.elect("e", "bcde")
    rig.isolate("e")
    for name in "bcd":
        rig.connect("a", name)
    rig.nodes["a"].enter_term(rig.nodes["e"].term, None)
    rig.time += 1.0
    leader = rig.nodes["a"]
    commit = leader.commit
    leader.follow(None)
    leader.enter_term(leader.term + 1, "a")
    leader.lead()
    rig.tick("a")
    assert leader.wal.last == old + 1  # the empty entry of its term
    for at, committed in ((old, commit), (old + 1, old + 1)):
        for name in "bc":
            leader.receive(name, _reply(leader.term, leader.leading_side.round, at))
        rig.tick("a")
        assert leader.commit == committed


def _reply(term: int, number: int, at: int) -> bytes:
    return encode(AppendReply(term, number, success=True, at=at))


def test_a_follower_commits_only_what_is_known_to_match() -> None:
    """A new leader tells what is committed before it has sent it; ours behind it may be others."""
    rig = Rig()
    rig.elect("a")
    rig.run(0.1)
    for number in range(3):
        rig.propose("a", b"of the old leader %d" % number)
    rig.tick("a")
    rig.deliver("a", "b")
    node = rig.nodes["b"]
    commit, last = node.commit, node.wal.last
    assert last == commit + 3
    term = node.wal.term_at(commit) or 0
    rig.inject("c", "b", AppendEntries(node.term + 1, 0, commit, term, last, ()))
    assert (node.commit, rig.machines["b"].commands) == (commit, [])


@pytest.mark.parametrize("names", ["a", "ab", "abc", "abcd", "abcde"])
def test_a_command_is_committed_once_a_majority_has_it(names: str) -> None:
    rig = Rig(names)
    leader = rig.elect("a")
    rig.run(0.1)
    ended = rig.propose("a", b"x")
    rig.tick("a")
    needed = len(names) // 2
    for count, name in enumerate(names[1:], 1):
        assert bool(ended) == (count > needed)
        rig.inject(name, "a", AppendReply(leader.term, 0, success=True, at=leader.wal.last))
    assert ended[0].outcome is Outcome.APPLIED
