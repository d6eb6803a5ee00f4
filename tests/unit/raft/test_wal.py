"""The write-ahead log: what survives what."""

import struct
from pathlib import Path
from random import Random

import pytest

from support.simdisk import SimDisk
from wgmap_cluster.raft.disk import CorruptError
from wgmap_cluster.raft.interface import LogError
from wgmap_cluster.raft.wal import Entry, WriteAheadLog

PATH = Path("raft.wal")


def entry(index: int, term: int = 1, size: int = 20) -> Entry:
    return (b"\x00" + b"%d" % index * size, index, term)


def filled(disk: SimDisk, last: int, per_sync: int = 5) -> WriteAheadLog:
    wal = WriteAheadLog(disk, PATH)
    for index in range(2, last + 1):
        wal.append(entry(index))
        if index % per_sync == 0:
            wal.sync()
    wal.sync()
    return wal


def batch_offsets(data: bytes) -> list[int]:
    offsets, offset = [], 20
    while offset < len(data):
        offsets.append(offset)
        offset += 24 + struct.unpack_from("<I", data, offset + 4)[0]
    return offsets


def test_everything_synced_is_read_again() -> None:
    disk = SimDisk()
    wal = filled(disk, 40)
    wal.set_term(7, "ms2")
    wal.set_commit(38)
    wal.truncate(39)
    wal.append(entry(39, term=7))
    wal.sync()
    again = WriteAheadLog(disk, PATH)
    assert again.entries == wal.entries
    assert (again.image.term, again.image.vote, again.commit) == (7, "ms2", 38)


def test_what_was_not_synced_may_go_but_only_that() -> None:
    for seed in range(200):
        disk, rng = SimDisk(), Random(seed)
        wal = filled(disk, 30)
        for index in range(31, 31 + rng.randint(1, 20)):
            wal.append(entry(index))
        file = wal._open_file()
        file.write(rng.randbytes(rng.randint(0, 300)))  # a write that was under way
        disk.crash(rng)
        again = WriteAheadLog(disk, PATH)
        assert again.entries == wal.entries[:30], seed
        again.append(entry(31, term=9))  # and it goes on behind the cut
        again.sync()
        assert WriteAheadLog(disk, PATH).last == 31, seed


def test_a_sync_under_way_leaves_all_of_the_batch_or_nothing() -> None:
    outcomes = set()
    for seed in range(200):
        disk, rng = SimDisk(), Random(seed)
        wal = filled(disk, 30)
        for index in range(31, 41):
            wal.append(entry(index))
        disk.fail_syncs = True
        with pytest.raises(LogError, match="cannot sync: Input/output error"):
            wal.sync()
        disk.fail_syncs = False
        disk.crash(rng)
        outcomes.add(WriteAheadLog(disk, PATH).last)
    assert outcomes == {30, 40}


def test_a_broken_middle_stops_with_file_and_offset() -> None:
    disk = SimDisk()
    filled(disk, 60)
    data = disk.read(PATH) or b""
    offsets = batch_offsets(data)
    for offset in offsets[:-1]:
        for position in (offset, offset + 4, offset + 9, offset + 21, offset + 26):
            broken = SimDisk()
            broken.create(PATH).write(data)
            broken.files[PATH].data[position] ^= 0x40
            with pytest.raises(CorruptError) as caught:
                WriteAheadLog(broken, PATH)
            assert (caught.value.path, caught.value.offset) == (PATH, offset)
            assert f"raft.wal: corrupt at offset {offset}" in str(caught.value)


def test_a_missing_page_in_the_middle_stops_too() -> None:
    disk = SimDisk()
    filled(disk, 600)
    disk.files[PATH].data[4096:8192] = bytes(4096)
    with pytest.raises(CorruptError):
        WriteAheadLog(disk, PATH)


def test_a_cut_at_any_byte_leaves_whole_batches() -> None:
    disk = SimDisk()
    filled(disk, 30)
    data = disk.read(PATH) or b""
    offsets = [*batch_offsets(data), len(data)]
    for size in range(offsets[1], len(data)):
        cut = SimDisk()
        cut.create(PATH).write(data[:size])
        wal = WriteAheadLog(cut, PATH)
        assert wal.size == max(offset for offset in offsets if offset <= size)


def test_commands_that_look_like_batches_do_not_mislead() -> None:
    disk = SimDisk()
    wal = filled(disk, 10)
    wal.append((b"WGB1" + bytes(20), 11, 1))
    wal.sync()
    torn = disk.files[PATH].data
    del torn[-4:]
    assert WriteAheadLog(disk, PATH).last == 10


def test_compaction_replaces_the_file_as_a_whole() -> None:
    disk = SimDisk()
    wal = filled(disk, 100)
    wal.set_term(3, "ms1")
    before = disk.read(PATH)
    wal.compact(60)
    assert (wal.first, wal.last, wal.term_at(60)) == (60, 100, 1)
    assert disk.read(PATH) != before
    again = WriteAheadLog(disk, PATH)
    assert again.entries == wal.entries
    assert (again.image.term, again.image.vote) == (3, "ms1")


@pytest.mark.parametrize("written", [0, 10, 500, 5000])
def test_a_disk_that_fills_up_during_compaction_loses_nothing(written: int) -> None:
    disk = SimDisk()
    wal = filled(disk, 100, per_sync=100)
    disk.fail_writes_after = disk.written + written
    with pytest.raises(LogError, match="No space left on device"):
        wal.compact(10)
    disk.fail_writes_after = None
    disk.crash(Random(written))
    assert WriteAheadLog(disk, PATH).last == 100


def test_nothing_committed_can_be_truncated() -> None:
    wal = filled(SimDisk(), 20)
    wal.set_commit(15)
    with pytest.raises(AssertionError, match="truncation at 15, committed 15"):
        wal.truncate(15)


@pytest.mark.parametrize("data", [b"", b"short", b"not a log at all" * 10])
def test_another_file_is_refused(data: bytes) -> None:
    disk = SimDisk()
    disk.create(PATH).write(data)
    with pytest.raises(CorruptError, match="offset 0"):
        WriteAheadLog(disk, PATH)


def test_the_commit_hint_needs_no_sync_of_its_own() -> None:
    disk = SimDisk()
    wal = filled(disk, 10)
    syncs = disk.syncs
    wal.set_commit(9)
    wal.sync()
    assert disk.syncs == syncs
    wal.flush_commit()
    wal.sync()
    assert WriteAheadLog(disk, PATH).commit == 9
