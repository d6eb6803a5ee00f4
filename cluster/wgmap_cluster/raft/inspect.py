"""What is in a state directory, without starting a server."""

from dataclasses import dataclass
from pathlib import Path

from wgmap_cluster.raft.disk import CorruptError, Disk, RealDisk
from wgmap_cluster.raft.node import SNAPSHOT_NAME, WAL_NAME
from wgmap_cluster.raft.snapshot import SnapshotMeta, read_meta
from wgmap_cluster.raft.wal import LogImage


@dataclass(frozen=True, slots=True)
class StateReport:
    """The state of the log on disk; zeros where there is none.

    ``problems`` are what keeps a server from starting; ``torn_bytes`` are of an unfinished write,
    never acknowledged, that the next start cuts.
    """

    empty: bool
    term: int = 0
    vote: str | None = None
    first_index: int = 0
    last_index: int = 0
    commit_index: int = 0
    wal_bytes: int = 0
    torn_bytes: int = 0
    snapshot_index: int = 0
    snapshot_bytes: int = 0
    members: tuple[str, ...] = ()  # as of the snapshot
    problems: tuple[str, ...] = ()


def check_state(state_dir: Path, disk: Disk | None = None) -> StateReport:
    """Read and check everything in ``state_dir``; raises LogError only if it cannot be read."""
    disk = disk or RealDisk()
    wal_path, snapshot_path = state_dir / WAL_NAME, state_dir / SNAPSHOT_NAME
    wal_data = disk.read(wal_path)
    problems: list[str] = []
    image = LogImage(wal_path)
    meta = _snapshot(disk, snapshot_path, problems)
    if wal_data is not None:
        try:
            image = LogImage.parse(wal_path, wal_data)
        except CorruptError as error:
            problems.append(str(error))
    elif meta is not None:
        problems.append(f"{wal_path}: missing beside a snapshot")
    if image.entries and not problems:
        problems += _contradictions(image, meta)
    return StateReport(
        empty=wal_data is None and meta is None and not problems,
        term=image.term,
        vote=image.vote,
        first_index=image.first if image.entries else 0,
        last_index=image.last if image.entries else 0,
        commit_index=image.commit,
        wal_bytes=len(wal_data or b""),
        torn_bytes=image.file_size - image.valid_size if image.entries else 0,
        snapshot_index=0 if meta is None else meta.index,
        snapshot_bytes=_size(disk, snapshot_path),
        members=() if meta is None else tuple(m.name for m in meta.members),
        problems=tuple(problems),
    )


def _snapshot(disk: Disk, path: Path, problems: list[str]) -> SnapshotMeta | None:
    try:
        return read_meta(disk, path)
    except CorruptError as error:
        problems.append(str(error))
        return None


def _contradictions(image: LogImage, meta: SnapshotMeta | None) -> list[str]:
    start = 1 if meta is None else meta.index
    if image.first > start:
        return [f"{image.path}: begins at {image.first}, the snapshot ends at {start}"]
    return []


def _size(disk: Disk, path: Path) -> int:
    file = disk.open(path)
    if file is None:
        return 0
    with file:
        return file.seek(0, 2)
