"""What wgmap-server check-state reports."""

from pathlib import Path

from support.raftrig import Rig
from wgmap_cluster.raft.inspect import check_state
from wgmap_cluster.raft.node import SNAPSHOT_NAME, WAL_NAME
from wgmap_cluster.raft.settings import Settings

ROOT = Path("/")


def used() -> Rig:
    rig = Rig("a", Settings(snapshot_entries=20, retain_entries=4))
    rig.elect("a")
    for number in range(50):
        rig.propose("a", b"%d" % number)
        rig.run(0.02)
    rig.nodes["a"].close()
    return rig


def test_an_empty_directory_is_empty(tmp_path: Path) -> None:
    report = check_state(tmp_path)
    assert report.empty
    assert not report.problems


def test_everything_is_reported() -> None:
    rig = used()
    node = rig.nodes["a"]
    report = check_state(ROOT, rig.disks["a"])
    assert not report.empty
    assert report.problems == ()
    assert (report.term, report.vote) == (node.term, "a")
    assert (report.first_index, report.last_index) == (node.wal.first, node.wal.last)
    assert report.commit_index == node.commit
    assert report.snapshot_index >= report.first_index > 1
    assert report.members == ("a",)
    assert report.wal_bytes > 100
    assert report.snapshot_bytes > 100


def test_a_torn_tail_is_no_problem() -> None:
    rig = used()
    rig.disks["a"].files[ROOT / WAL_NAME].data += b"torn"
    report = check_state(ROOT, rig.disks["a"])
    assert (report.torn_bytes, report.problems) == (4, ())


def test_problems_name_file_and_offset() -> None:
    rig = used()
    files = rig.disks["a"].files
    files[ROOT / WAL_NAME].data[50] ^= 1
    files[ROOT / SNAPSHOT_NAME].data[50] ^= 1
    problems = check_state(ROOT, rig.disks["a"]).problems
    assert [problem.split(":")[:2] for problem in problems] == [
        ["/raft.snapshot", " corrupt at offset 38"],
        ["/raft.wal", " corrupt at offset 20"],
    ]


def test_a_missing_log_beside_a_snapshot_is_a_problem() -> None:
    rig = used()
    del rig.disks["a"].files[ROOT / WAL_NAME]
    (problem,) = check_state(ROOT, rig.disks["a"]).problems
    assert problem == "/raft.wal: missing beside a snapshot"


def test_a_gap_between_snapshot_and_log_is_a_problem() -> None:
    rig = used()
    disk = rig.disks["a"]
    del disk.files[ROOT / SNAPSHOT_NAME]
    (problem,) = check_state(ROOT, disk).problems
    assert "the snapshot ends at 1" in problem
