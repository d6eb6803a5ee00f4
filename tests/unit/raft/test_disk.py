"""The file system: what is durable when, and in which order."""

import os
from pathlib import Path
from typing import Any

import pytest

from wgmap_cluster.raft.disk import RealDisk, beside
from wgmap_cluster.raft.wal import WriteAheadLog

CALLS = ("write", "fdatasync", "fsync", "rename", "replace", "truncate")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What the process asks the system for: (call, name of the file)."""
    made: list[tuple[str, str]] = []
    for name in CALLS:
        real = getattr(os, name)

        def recorded(target: Any, *rest: Any, _name: str = name, _real: Any = real) -> Any:
            number = isinstance(target, int)
            path = Path(f"/proc/self/fd/{target}").readlink() if number else Path(target)
            made.append((_name, path.name))
            return _real(target, *rest)

        monkeypatch.setattr(os, name, recorded)
    return made


def test_a_file_takes_anothers_place_durably(calls: list[tuple[str, str]], tmp_path: Path) -> None:
    """The content before the name, and the name before anything is built on it."""
    disk, target = RealDisk(), tmp_path / "file"
    target.write_bytes(b"old")
    del calls[:]
    file = disk.create(beside(target, ".new"))
    file.write(b"content")
    file.sync()
    file.close()
    disk.replace(beside(target, ".new"), target)
    assert [name for _, name in calls] == [*["file.new"] * 3, tmp_path.name]
    assert [call for call, _ in calls] == ["write", "fdatasync", "replace", "fsync"]
    assert target.read_bytes() == b"content"


def test_a_first_file_is_durable_with_its_directory(
    calls: list[tuple[str, str]], tmp_path: Path
) -> None:
    """A state directory that was made just before it would be lost with all that is in it."""
    directory = tmp_path / "state"
    directory.mkdir()
    wal = WriteAheadLog(RealDisk(), directory / "raft.wal")
    wal.set_term(1, "a")
    wal.sync()
    wal.close()
    assert [name for call, name in calls if call == "fsync"] == ["state", tmp_path.name]


def test_a_cut_is_durable(calls: list[tuple[str, str]], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    RealDisk().truncate(path, 4)
    assert [call for call, _ in calls] == ["truncate", "fdatasync"]
    assert path.read_bytes() == b"0123"


def test_each_sync_of_the_log_is_one_write_and_one_fdatasync(
    calls: list[tuple[str, str]], tmp_path: Path
) -> None:
    wal = WriteAheadLog(RealDisk(), tmp_path / "raft.wal")
    wal.set_term(1, "a")
    wal.sync()  # the first makes the file
    del calls[:]
    wal.append((b"one", 2, 1), (b"two", 3, 1))
    wal.set_term(2, "b")
    wal.sync()
    assert calls == [("write", "raft.wal"), ("fdatasync", "raft.wal")]
    wal.close()
