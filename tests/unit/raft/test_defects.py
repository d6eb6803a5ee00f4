"""P1 to P13: the library's defects, each cured (docs/replication.md has the list).

tests/cluster/test_stock_library.py shows that the library alone still has them.
"""

from pathlib import Path

import pytest

from support.raftrig import Rig
from support.simdisk import PowerLossError
from wgmap_cluster.raft.disk import CorruptError
from wgmap_cluster.raft.interface import LogError, Outcome
from wgmap_cluster.raft.messages import AppendEntries, AppendReply, Proposed, Told
from wgmap_cluster.raft.node import SNAPSHOT_NAME, WAL_NAME, ApplyFailed
from wgmap_cluster.raft.protocol import ContradictionError
from wgmap_cluster.raft.settings import Settings

WAL, SNAPSHOT = Path("/") / WAL_NAME, Path("/") / SNAPSHOT_NAME


def commit_many(rig: Rig, leader: str, count: int, names: str, prefix: bytes = b"c") -> None:
    done = [rig.propose(leader, b"%s%d" % (prefix, number)) for number in range(count)]
    rig.run(0.2, names)
    assert all(result[0].outcome is Outcome.APPLIED for result in done)


def test_p1_entries_sent_again_truncate_nothing() -> None:
    rig = Rig()
    leader = rig.elect("a")
    node = rig.nodes["b"]
    commit_many(rig, "a", 5, "abc")
    for number in range(20):
        rig.propose("a", b"k%d" % number)
    rig.tick("a")
    rig.deliver("a", "b")
    acknowledged = node.wal.last
    entries = node.wal.slice(node.commit + 1, node.commit + 4)
    before = node.commit
    again = AppendEntries(
        leader.term, 0, before, node.wal.term_at(before) or 0, before, tuple(entries)
    )
    rig.inject("a", "b", again)
    rig.inject("a", "b", again._replace(entries=()))
    assert node.wal.last == acknowledged


def test_p1_a_conflict_does_truncate_and_only_from_there() -> None:
    rig = Rig()
    rig.elect("a")
    rig.isolate("a")
    for number in range(5):
        rig.propose("a", b"lost%d" % number)
    rig.tick("a")
    old = rig.nodes["a"].wal.last
    rig.elect("b", "bc")
    commit_many(rig, "b", 2, "bc")
    rig.connect("a", "b")
    rig.run(0.2, "abc")
    assert rig.nodes["a"].wal.entries == rig.nodes["b"].wal.entries
    assert rig.nodes["a"].wal.last < old + 2
    assert rig.machines["a"].commands == [b"c0", b"c1"]


def test_p2_a_rejoining_leader_applies_nothing_of_its_own_while_a_snapshot_comes() -> None:
    rig = Rig(settings=Settings(snapshot_entries=20, retain_entries=2, chunk_bytes=64))
    rig.elect("a")
    rig.isolate("a")
    lost = [rig.propose("a", b"lost%d" % number) for number in range(5)]
    rig.tick("a")
    rig.elect("b", "bc")
    commit_many(rig, "b", 60, "bc")
    assert rig.nodes["b"].wal.first > rig.nodes["a"].wal.last
    rig.connect("a", "b")
    rig.connect("a", "c")
    for _ in range(5):  # some chunks, not all
        rig.time += 0.06
        rig.tick("b")
        rig.deliver("b", "a", 1)
        rig.deliver("a", "b")
        assert rig.machines["a"].commands == []
    rig.run(0.5, "abc")
    assert rig.machines["a"].commands == rig.machines["b"].commands
    assert not any(b"lost" in command for command in rig.machines["a"].commands)
    assert {result[0].outcome for result in lost} <= {Outcome.UNKNOWN, Outcome.NOT_APPLIED}


def test_p3_a_snapshot_newer_than_the_head_of_the_log_keeps_what_follows() -> None:
    rig = Rig()
    rig.elect("a")
    commit_many(rig, "a", 50, "abc")
    node = rig.nodes["b"]
    node.take_snapshot()  # written; the power goes before the log is cut
    assert node.snapshots.poll()
    commit_many(rig, "a", 50, "abc", b"d")
    before = rig.nodes["b"].wal.last
    again = rig.crash("b")
    assert again.snapshots.meta is not None
    assert again.wal.last == before
    rig.run(0.3)
    assert rig.machines["b"].commands == rig.machines["a"].commands


def test_p4_a_kill_during_compaction_leaves_the_old_log_or_the_new_one() -> None:
    for operation in range(4):
        rig = Rig("a", Settings(snapshot_entries=10**9, retain_entries=5))
        rig.elect("a", "a")
        commit_many(rig, "a", 40, "a")
        node = rig.nodes["a"]
        node.take_snapshot()
        assert node.snapshots.poll()
        rig.disks["a"].power_lost_in = operation
        with pytest.raises(PowerLossError):
            node.wal.compact(node.applied - 5)
        again = rig.crash("a")
        assert again.wal.last >= again.applied == node.applied
        assert len(rig.machines["a"].commands) == 40


def test_p5_an_answer_to_an_earlier_incarnation_is_not_taken_for_ours() -> None:
    rig = Rig()
    rig.elect("a")
    rig.run(0.1)
    rig.propose("b", b"old")
    rig.tick("b")
    (request,) = [m for m in rig.sent("b", "a") if type(m).__name__ == "Propose"]
    old_id = request.items[0][0]  # type: ignore[union-attr]
    rig.crash("b")
    rig.run(0.1)
    new = rig.propose("b", b"new")
    rig.tick("b")
    assert old_id not in rig.nodes["b"].proposals._pending
    rig.frames["b", "a"].clear()
    rig.inject(
        "a", "b", Proposed(rig.nodes["a"].term, ((old_id, rig.nodes["a"].wal.last + 1),), "")
    )
    commit_many(rig, "a", 1, "abc", b"other")
    assert new == []
    rig.run(2.0)
    assert new[0].outcome is Outcome.UNKNOWN


def test_an_answer_to_a_question_of_an_earlier_incarnation_is_not_taken_for_ours() -> None:
    """The question's number is the log's own; who is asked may take a second to answer."""
    rig = Rig()
    old, new = list[bytes](), list[bytes]()
    number = rig.nodes["b"].questions.ask("a", b"old", old.append)
    assert number is not None
    rig.crash("b")
    asked = rig.nodes["b"].questions.ask("a", b"new", new.append)
    assert asked is not None
    rig.inject("a", "b", Told(number, b"to the old one"))
    rig.run(0.1)
    assert (old, new) == ([], [])
    rig.inject("a", "b", Told(asked, b"to the new one"))
    rig.run(0.1)
    assert (old, new) == ([], [b"to the new one"])


def test_p6_an_acknowledgement_of_an_old_term_does_not_count() -> None:
    rig = Rig("abcde")
    leader = rig.elect("a")
    rig.isolate("a")
    rig.propose("a", b"x")
    rig.tick("a")
    last, commit = leader.wal.last, leader.commit
    assert last > commit
    for name in "de":
        rig.inject(name, "a", AppendReply(leader.term - 1, 0, success=True, at=last))
    assert leader.commit == commit


def test_p7_one_file_without_the_other_is_refused() -> None:
    rig = Rig("a", Settings(snapshot_entries=10, retain_entries=2))
    rig.elect("a", "a")
    commit_many(rig, "a", 30, "a")
    rig.run(0.2)
    kept = rig.disks["a"].files.pop(SNAPSHOT)
    with pytest.raises(LogError, match=r"begins at \d+ and there is no /raft.snapshot"):
        rig.boot("a")
    rig.disks["a"].files[SNAPSHOT] = kept
    del rig.disks["a"].files[WAL]
    with pytest.raises(LogError, match="wal is missing beside"):
        rig.boot("a")
    with pytest.raises(LogError, match="missing"):
        rig.boot("a")  # and the refusal wrote nothing that lets a second start pass


def test_p8_a_broken_snapshot_stops_the_server() -> None:
    rig = Rig("a", Settings(snapshot_entries=10, retain_entries=2))
    rig.elect("a", "a")
    commit_many(rig, "a", 30, "a")
    rig.run(0.2)
    data = rig.disks["a"].files[SNAPSHOT].data
    del data[len(data) // 2 :]
    with pytest.raises(CorruptError, match=r"raft.snapshot: corrupt at offset \d+"):
        rig.boot("a")


def test_p9_a_proposal_ends_when_a_snapshot_covers_its_index() -> None:
    rig = Rig(settings=Settings(snapshot_entries=20, retain_entries=2))
    rig.elect("a")
    rig.run(0.1)
    result = rig.propose("b", b"x", deadline_s=100.0)
    rig.tick("b")
    rig.deliver("b", "a")
    proposed = [m for m in rig.sent("a", "b") if isinstance(m, Proposed)]
    rig.frames["a", "b"].clear()
    rig.inject("a", "b", proposed[0])  # it learns its place, then it is cut off
    rig.isolate("b")
    commit_many(rig, "a", 60, "ac")
    assert result == []
    rig.connect("a", "b")
    rig.run(0.5)
    assert result[0].outcome is Outcome.UNKNOWN
    assert b"x" in rig.machines["b"].commands


def test_p10_an_exception_in_apply_is_a_result_and_the_log_goes_on() -> None:
    rig = Rig()
    rig.elect("a")
    bad, good = rig.propose("b", b"raise"), rig.propose("b", b"good")
    rig.run(0.2)
    assert (bad[0].outcome, bad[0].result) == (Outcome.APPLIED, ApplyFailed("KeyError"))
    assert good[0].outcome is Outcome.APPLIED
    assert {tuple(machine.commands) for machine in rig.machines.values()} == {(b"good",)}


@pytest.mark.parametrize("size", [32 * 1024, 65_400, 65_500, 131_030])
def test_p11_an_entry_near_or_over_the_batch_size_arrives(size: int) -> None:
    rig = Rig()
    rig.elect("a")
    result = rig.propose("a", b"x" * size)
    rig.run(0.2)
    assert result[0].outcome is Outcome.APPLIED
    assert rig.machines["c"].commands == [b"x" * size]


def test_p12_an_old_leader_is_back_after_a_few_rounds() -> None:
    rig = Rig()
    rig.elect("a")
    rig.isolate("a")
    for number in range(300):
        rig.propose("a", b"z%d" % number)
    rig.tick("a")
    rig.elect("b", "bc")
    commit_many(rig, "b", 320, "bc")
    rig.elect("c", "bc")
    rig.connect("a", "b")
    rig.connect("a", "c")
    rounds = 0
    while rig.nodes["a"].applied < rig.nodes["c"].applied and rounds < 100:
        rig.run(0.05)
        rounds += 1
    assert rounds <= 4


def test_p13_a_second_install_rolls_nothing_back() -> None:
    rig = Rig(settings=Settings(snapshot_entries=20, retain_entries=2))
    leader = rig.elect("a")
    rig.isolate("b")
    commit_many(rig, "a", 60, "ac")
    rig.connect("a", "b")
    rig.time += 0.06
    rig.tick("a")
    install = list(rig.frames["a", "b"])  # the snapshot, to be delivered again later
    assert any(type(m).__name__ == "Install" for m in rig.sent("a", "b"))
    rig.run(0.3)
    commit_many(rig, "a", 25, "ab", b"acked")
    last, applied = rig.nodes["b"].wal.last, rig.nodes["b"].applied
    assert applied == leader.applied
    for frame in install:
        rig.nodes["b"].receive("a", frame)
    rig.tick("b")
    assert (rig.nodes["b"].wal.last, rig.nodes["b"].applied) == (last, applied)


def test_a_leader_that_contradicts_what_is_committed_stops_the_server() -> None:
    rig = Rig()
    leader = rig.elect("a")
    commit_many(rig, "a", 5, "abc")
    node = rig.nodes["b"]
    term, commit = leader.term + 3, node.commit
    before = node.wal.term_at(commit - 1) or 0
    entries = ((b"\x00other", commit, term),)
    with pytest.raises(ContradictionError, match=f"wants to replace entry {commit}"):
        rig.inject("c", "b", AppendEntries(term, 0, commit - 1, before, commit, entries))
