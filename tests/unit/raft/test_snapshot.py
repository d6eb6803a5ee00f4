"""Snapshots: whole or refused, never older than what is there."""

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from support.raftrig import Rig
from support.simdisk import PowerLossError, SimDisk
from wgmap_cluster.raft.disk import CorruptError
from wgmap_cluster.raft.interface import LogError, Member, Outcome
from wgmap_cluster.raft.messages import Install
from wgmap_cluster.raft.settings import Settings
from wgmap_cluster.raft.snapshot import Job, SnapshotMeta, SnapshotStore, ThreadJob, read_meta

PATH = Path("raft.snapshot")
SMALL = Settings(snapshot_entries=20, retain_entries=2, chunk_bytes=64, install_timeout_s=2.0)
OURS = (3, 50)  # a leader's term, and the index
PIECES = [bytes([number]) * 100 for number in range(1, 20)]


class LaterJob:
    """Runs when the test says so."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work, self._done = work, False

    def finish(self) -> None:
        self._work()
        self._done = True

    def done(self) -> bool:
        return self._done


class Background:
    def __init__(self) -> None:
        self.jobs: list[LaterJob] = []

    def __call__(self, work: Callable[[], None]) -> Job:
        self.jobs.append(LaterJob(work))
        return self.jobs[-1]


def meta(index: int, term: int = 1) -> SnapshotMeta:
    return SnapshotMeta(index, term, (Member("ms1", "[fd00::1]:4343"),))


def saved(disk: SimDisk, index: int = 10) -> SnapshotStore:
    background = Background()
    store = SnapshotStore(disk, PATH, background)
    store.save(meta(index), PIECES)
    background.jobs[0].finish()
    assert store.poll()
    return store


def test_what_was_saved_is_read_again() -> None:
    disk = SimDisk()
    saved(disk)
    again = SnapshotStore(disk, PATH)
    assert again.meta == meta(10)
    assert list(again.pieces()) == PIECES


def test_any_broken_byte_and_any_cut_is_noticed() -> None:
    disk = SimDisk()
    saved(disk)
    data = disk.read(PATH) or b""
    for position in range(len(data)):
        disk.files[PATH].data = bytearray(data)
        disk.files[PATH].data[position] ^= 1
        with pytest.raises(CorruptError, match=r"raft.snapshot: corrupt at offset \d+"):
            read_meta(disk, PATH)
        disk.files[PATH].data = bytearray(data[:position])
        with pytest.raises(CorruptError):
            read_meta(disk, PATH)
    disk.files[PATH].data = bytearray(data + b"x")
    with pytest.raises(CorruptError, match="behind the end"):
        read_meta(disk, PATH)


def test_swapped_pieces_are_noticed() -> None:
    disk = SimDisk()
    saved(disk)
    data = disk.files[PATH].data
    first = data.index(PIECES[3]) - 8
    data[first : first + 216] = data[first + 108 : first + 216] + data[first : first + 108]
    with pytest.raises(CorruptError):
        read_meta(disk, PATH)


def test_a_crash_while_writing_leaves_the_old_one() -> None:
    for seed in range(30):
        disk, rng = SimDisk(), Random(seed)
        saved(disk, 10)
        disk.fail_writes_after = disk.written + rng.randint(0, 1500)
        background = Background()
        store = SnapshotStore(disk, PATH, background)
        store.save(meta(20), PIECES)
        with pytest.raises(LogError):
            background.jobs[0].finish()
        disk.crash(rng)
        assert SnapshotStore(disk, PATH).meta == meta(10)


def test_one_that_was_overtaken_is_dropped() -> None:
    disk, other = SimDisk(), SimDisk()
    saved(other, 50)
    background = Background()
    store = SnapshotStore(disk, PATH, background)
    store.save(meta(20), PIECES)
    whole = other.read(PATH) or b""
    assert store.receive(OURS, len(whole), 0, whole) == len(whole)
    assert store.install() == meta(50)
    background.jobs[0].finish()
    assert not store.poll()
    assert store.meta == read_meta(disk, PATH) == meta(50)


def test_pieces_come_in_order_or_not_at_all() -> None:
    disk, other = SimDisk(), SimDisk()
    saved(other, 50)
    whole = other.read(PATH) or b""
    store = SnapshotStore(disk, PATH)
    assert store.receive(OURS, len(whole), 300, whole[300:400]) == 0
    assert store.receive(OURS, len(whole), 0, whole[:300]) == 300
    assert store.receive(OURS, len(whole), 400, whole[400:500]) == 300  # a gap
    assert store.receive(OURS, len(whole), 0, whole[:300]) == 300  # a repetition
    assert store.receive((3, 40), len(whole), 300, whole[300:400]) == 0  # of another snapshot
    assert store.receive(OURS, len(whole), 300, whole[300:]) == len(whole)
    assert store.install() == meta(50)
    assert list(store.pieces()) == PIECES


def test_the_files_of_two_leaders_are_never_mixed() -> None:
    """Both are of index 50; equal states need not give equal bytes."""
    disk, one, two = SimDisk(), SimDisk(), SimDisk()
    saved(one, 50)
    background = Background()
    other = SnapshotStore(two, PATH, background)
    other.save(meta(50), [piece[:50] for piece in PIECES])
    background.jobs[0].finish()
    assert other.poll()
    first, second = one.read(PATH) or b"", two.read(PATH) or b""
    store = SnapshotStore(disk, PATH)
    assert store.receive((3, 50), len(first), 0, first[:300]) == 300
    assert store.receive((4, 50), len(second), 300, second[300:600]) == 0
    assert store.receive((4, 50), len(second), 0, second[:300]) == 300
    assert store.receive((4, 50), len(second), 300, second[300:]) == len(second)
    assert store.install() == meta(50)
    assert list(store.pieces()) == [piece[:50] for piece in PIECES]


def test_a_failing_thread_shows_when_asked() -> None:
    def fail() -> None:
        raise LogError("x: cannot write: No space left on device")

    def bug() -> None:
        raise KeyError("x")

    for work, text in ((fail, "No space left"), (bug, "KeyError")):
        job = ThreadJob(work)
        job._thread.join()
        with pytest.raises(LogError, match=text):
            job.done()


def write_many(rig: Rig, count: int, names: str) -> None:
    done = [rig.propose("a", b"c%d" % number) for number in range(count)]
    rig.run(0.2, names)
    assert all(result[0].outcome is Outcome.APPLIED for result in done)


def test_a_server_that_dies_while_it_is_sent_one_holds_the_log_for_a_while_only() -> None:
    """What follows the snapshot on its way is kept for it, but not for ever: it may be gone."""
    rig = Rig(settings=SMALL)
    leader = rig.elect("a")
    rig.isolate("b")
    write_many(rig, 60, "ac")
    rig.connect("a", "b")
    rig.time += 0.06
    rig.tick("a")
    (first, *_) = [m for m in rig.sent("a", "b") if isinstance(m, Install)]
    rig.deliver("a", "b", 1)
    rig.deliver("b", "a")
    rig.isolate("b")
    for _ in range(3):
        write_many(rig, 60, "ac")
        assert leader.wal.first <= first.last_index  # b may be back in a moment
    rig.run(SMALL.install_timeout_s, "ac")
    write_many(rig, 60, "ac")
    assert leader.wal.first > first.last_index + 150
    rig.crash("b")
    rig.run(1.0)
    assert rig.machines["b"].commands == rig.machines["a"].commands


def test_a_crash_at_any_step_of_an_install_leaves_a_server_that_goes_on() -> None:
    """The old state or the new one, with log and snapshot that fit together."""
    completed = False
    operation = 0
    while not completed:
        rig = Rig(settings=Settings(snapshot_entries=50, retain_entries=5, chunk_bytes=300))
        rig.elect("a")
        rig.propose("a", b"before")
        rig.run(0.2)
        rig.isolate("c")
        for number in range(120):
            rig.propose("a", b"%d" % number)
        rig.run(0.3, "ab")
        rig.connect("a", "c")
        rig.disks["c"].power_lost_in = operation
        try:
            rig.run(0.5)
            completed = True
        except PowerLossError:
            rig.crash("c")
            restored = rig.machines["c"].commands  # less than is committed, perhaps
            assert restored == rig.machines["a"].commands[: len(restored)]
            rig.run(0.5)
        assert rig.machines["c"].commands == rig.machines["a"].commands
        operation += 1
    assert operation > 8


def test_an_install_that_crawls_does_not_hold_the_log_for_ever() -> None:
    settings = Settings(
        snapshot_entries=50, retain_entries=5, snapshot_bytes=4000, chunk_bytes=64, window_bytes=64
    )
    rig = Rig(settings=settings)
    leader = rig.elect("a")
    rig.isolate("c")
    for number in range(200):
        rig.propose("a", b"%d" % number)
    rig.run(0.3, "ab")
    rig.connect("a", "c")
    longest = 0
    for number in range(400):  # c gets a piece now and then: progress, but not much
        rig.propose("a", b"%d" % number * 10)
        rig.run(0.02, "ab")
        if number % 40 == 0:
            rig.deliver("a", "c", 2)
            rig.deliver("c", "a")
        longest = max(longest, leader.wal.size)
    assert longest < 6 * settings.snapshot_bytes
    rig.run(3.0)
    assert rig.machines["c"].commands == rig.machines["a"].commands
