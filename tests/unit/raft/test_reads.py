"""Reads and proposals that must not wait for a heartbeat, nor lie."""

import pytest

from support.raftrig import Rig
from wgmap_cluster.raft.interface import Outcome, Proposal
from wgmap_cluster.raft.messages import AppendReply, Install, Propose, ReadRequest
from wgmap_cluster.raft.settings import Settings


def test_a_followers_proposal_goes_out_in_the_tick_that_it_arrives_in() -> None:
    rig = Rig()
    rig.elect("a")
    rig.run(0.1)
    result = rig.propose("b", b"x")
    rig.tick("b")
    for sender, receiver in (("b", "a"), ("a", "c"), ("c", "a"), ("a", "b")):
        rig.deliver(sender, receiver)  # no time passes
    assert result[0].outcome is Outcome.APPLIED


def test_one_round_serves_all_reads_of_a_tick() -> None:
    rig = Rig()
    leader = rig.elect("a")
    rig.run(0.1)
    before = leader.leading_side.round
    local = [rig.read("a") for _ in range(50)]
    remote = [rig.read("b") for _ in range(50)]
    rig.tick("b")
    rig.deliver("b", "a")
    rig.run(0.03)
    assert all(read == [leader.applied] for read in local + remote)
    assert leader.leading_side.round - before <= 2


def test_a_read_needs_answers_given_after_it_was_asked() -> None:
    rig = Rig()
    rig.elect("a")
    rig.run(0.1)
    leader = rig.nodes["a"]
    rig.isolate("a")
    read = rig.read("a")
    rig.tick("a")
    old = AppendReply(leader.term, leader.leading_side.round - 1, success=True, at=leader.commit)
    rig.inject("b", "a", old)
    assert read == []
    rig.inject("b", "a", old._replace(round=leader.leading_side.round))
    assert read == [leader.applied]


def test_a_fresh_leader_does_not_answer_before_its_first_commit() -> None:
    rig = Rig()
    rig.elect("a")
    rig.run(0.1)
    node = rig.nodes["b"]
    rig.time += 1
    node.elections._won_question = True
    node.election_now()
    rig.tick("b")
    rig.deliver("b", "c")
    rig.deliver("c", "b")  # elected; its entry is under way
    assert node.leading
    read = rig.read("b")
    rig.tick("b")
    assert read == []
    rig.run(0.05, "bc")
    assert read == [node.applied]
    assert node.applied >= (node.first_of_term or 0)


def test_a_read_on_a_follower_waits_until_it_has_applied() -> None:
    rig = Rig()
    rig.elect("a")
    rig.run(0.1)
    rig.propose("a", b"x")
    rig.tick("a")
    rig.deliver("a", "c")
    rig.deliver("c", "a")  # committed; b knows nothing of it yet
    kept = [frame for frame in rig.frames["a", "b"]]  # noqa: C416  # a copy
    rig.frames["a", "b"].clear()
    read = rig.read("b")
    rig.tick("b")
    rig.deliver("b", "a")
    rig.deliver("a", "c")
    rig.deliver("c", "a")
    answer = [m for m in rig.sent("a", "b") if type(m).__name__ == "ReadReply"]
    assert answer
    rig.frames["a", "b"] = []
    rig.inject("a", "b", answer[0])
    assert read == []
    for frame in kept:
        rig.nodes["b"].receive("a", frame)
    rig.connect("a", "b")
    rig.run(0.1)
    assert read == [rig.nodes["a"].applied]
    assert rig.machines["b"].commands == [b"x"]


def test_reads_end_at_their_deadline() -> None:
    rig = Rig()
    rig.elect("a")
    rig.isolate("b")
    read = rig.read("b", 0.5)
    rig.run(0.4)
    assert read == []
    rig.run(0.2)
    assert read == [None]


@pytest.mark.parametrize("one_way_s", [0.02, 0.1, 0.15])
def test_a_read_waits_for_a_leader_that_is_far_away(one_way_s: float) -> None:
    """Four times the way: the question, the leader's round, the answer; no less, and no more."""
    rig = Rig()
    rig.elect("a")
    rig.run(0.1)
    read = rig.read("b", 4 * one_way_s + 0.1)
    rig.run_far(4 * one_way_s + 0.1, "a", one_way_s)
    assert read == [rig.nodes["a"].commit]


def test_a_read_is_asked_again_where_its_question_may_be_lost() -> None:
    rig = Rig()
    rig.elect("a")
    rig.run(0.1)
    read = rig.read("b")
    rig.tick("b")
    assert ReadRequest in map(type, rig.sent("b", "a"))
    rig.disconnect("a", "b")
    rig.connect("a", "b")
    rig.run(0.2)
    assert read == [rig.nodes["a"].commit]


def test_reads_are_bounded_wherever_they_wait() -> None:
    rig = Rig(settings=Settings(pending_limit=10))
    rig.elect("a")
    rig.run(0.1)
    for name in "ab":  # the leader waits for its round, the follower for the leader
        rig.deliver("a", name, 0)
        reads = [rig.read(name) for _ in range(6)]
        rig.tick(name)
        reads += [rig.read(name) for _ in range(6)]
        rig.tick(name)
        assert reads == [[]] * 10 + [[None]] * 2
    rig.run(0.2)
    again = rig.read("a")
    rig.run(0.1)
    assert again == [rig.nodes["a"].applied]


def test_who_is_refused_asks_again_when_the_leader_is_heard_and_not_before() -> None:
    """It was asked over and over, as fast as the network went, until it was replaced."""
    rig = Rig()
    leader = rig.elect("a")
    rig.run(0.2)
    leader.proposals.hold_until = rig.time + 0.3  # as while it hands over
    result = rig.propose("b", b"x")
    asked = 0
    for _ in range(50):  # no time passes
        rig.tick("b")
        asked += sum(isinstance(message, Propose) for message in rig.sent("b", "a"))
        rig.deliver("b", "a")
        rig.deliver("a", "b")
    assert asked == 1
    rig.run(0.5)
    assert result[0].outcome is Outcome.APPLIED


def test_proposals_are_bounded_by_their_size_as_well() -> None:
    rig = Rig(settings=Settings(pending_bytes=1000, uncommitted_bytes=2500))
    rig.elect("a")
    rig.isolate("a")
    results = [rig.propose("a", b"x" * 299) for _ in range(4)]
    rig.tick("a")
    assert [r[0].reason for r in results if r] == ["too many proposals"]
    last: list[Proposal] = []
    for _ in range(10):
        rig.nodes["a"].proposals.end_all("the test")
        last = rig.propose("a", b"x" * 299)
        rig.tick("a")
    assert last[0].reason == "the leader has no quorum"
    held = sum(len(command) for command, _, _ in rig.nodes["a"].wal.entries)
    assert 2500 <= held < 2500 + 400


def test_too_many_proposals_are_refused_at_once() -> None:
    rig = Rig(settings=Settings(pending_limit=10))
    results = [rig.propose("a", b"x") for _ in range(11)]
    rig.tick("a")
    assert [bool(result) for result in results] == [False] * 10 + [True]
    assert results[10][0].outcome is Outcome.NOT_APPLIED


def test_a_leader_without_quorum_takes_a_bounded_number() -> None:
    rig = Rig(settings=Settings(uncommitted_limit=5))
    rig.elect("a")
    rig.isolate("a")
    results = [rig.propose("a", b"x") for _ in range(8)]
    rig.tick("a")
    assert [r[0].reason for r in results if r] == ["the leader has no quorum"] * 3


def test_outcomes_come_after_the_sync() -> None:
    for names in ("a", "abc"):
        rig = Rig(names)
        rig.elect("a")
        rig.run(0.1)
        node, disk = rig.nodes["a"], rig.disks["a"]
        synced: list[bool] = []
        node.proposals.add(
            b"\x00x",
            rig.time + 1,
            lambda _, disk=disk, synced=synced: synced.append(  # type: ignore[misc]
                all(len(file.data) == file.synced for file in disk.files.values())
            ),
        )
        rig.run(0.1)
        assert synced == [True]
        assert not node.wal._buffer


@pytest.mark.parametrize("window", [300, 3000])
def test_a_snapshot_on_its_way_is_bounded(window: int) -> None:
    settings = Settings(snapshot_entries=50, retain_entries=2, chunk_bytes=100, window_bytes=window)
    rig = Rig(settings=settings)
    rig.elect("a")
    rig.isolate("b")
    for number in range(300):
        rig.propose("a", b"%d" % number * 10)
    rig.run(0.3, "ac")
    rig.connect("a", "b")
    for _ in range(200):  # b does not answer
        rig.time += 0.05
        rig.tick("a")
        rig.deliver("c", "a")
        rig.deliver("a", "c")
    installs = [m for m in rig.sent("a", "b") if isinstance(m, Install)]
    in_flight = sum(len(message.data) for message in installs)
    assert 0 < in_flight <= window + 100
    rig.run(3.0)
    assert rig.machines["b"].commands == rig.machines["a"].commands
