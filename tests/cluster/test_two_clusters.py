"""A server of a cluster that was lost is not let in by the one that was restored in its place."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from support import fsm
from support.raftlog import eventually, loopback_members
from wgmap_cluster.fsm.commands import encode
from wgmap_cluster.fsm.machine import Machine
from wgmap_cluster.fsm.rows import Meta
from wgmap_cluster.raft.interface import LogError, Member, Outcome
from wgmap_cluster.raft.log import RaftLog
from wgmap_cluster.replica.identity import FILE, ClusterIdentity

Members = tuple[Member, ...]


def make(directory: Path) -> None:
    directory.mkdir(exist_ok=True)


async def start(name: str, members: Members, directory: Path) -> tuple[RaftLog, Machine]:
    make(directory)
    machine = Machine()
    identity = ClusterIdentity(machine, directory)
    log = RaftLog(name, members, directory, machine, cluster_id=identity)
    await log.start()
    return log, machine


async def founded(members: Members, base: Path, cluster_id: bytes, *names: str) -> list[RaftLog]:
    make(base)
    started = [await start(name, members, base / name) for name in names]
    data = encode(replace(fsm.bootstrap(), cluster_id=cluster_id))
    for log, _ in started:
        await eventually(lambda log=log: log.status().leader is not None)  # type: ignore[misc]
    assert (await started[0][0].propose(data, 5.0)).outcome is Outcome.APPLIED
    for _, machine in started:
        await eventually(lambda m=machine: m.state.founded)  # type: ignore[misc]
    return [log for log, _ in started]


async def test_servers_of_two_clusters_never_connect(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    members = loopback_members(3)
    old = await founded(members, tmp_path / "old", b"o" * 16, "ms1", "ms2", "ms3")
    await asyncio.gather(*(log.stop() for log in old))
    async with AsyncExitStack() as stack:
        new = await founded(members, tmp_path / "new", b"n" * 16, "ms1", "ms2")
        for log in new:
            stack.push_async_callback(log.stop)
        back, machine = await start("ms3", members, tmp_path / "old" / "ms3")
        stack.push_async_callback(back.stop)
        await eventually(lambda: caplog.text.count("ms3 belongs to another cluster") > 3)
        assert not any(log.status().others["ms3"].connected for log in new)
        assert (await new[0].propose(b"still there", 5.0)).outcome is Outcome.APPLIED
        await back.stop()
        fresh, machine = await start("ms3", members, tmp_path / "new" / "ms3")
        stack.push_async_callback(fresh.stop)
        await eventually(lambda: machine.state.meta.get(Meta.CLUSTER_ID) == b"n" * 16)


def test_what_the_log_says_counts(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text((b"o" * 16).hex())
    machine = Machine()
    identity = ClusterIdentity(machine, tmp_path)
    assert identity() == b"o" * 16
    machine.apply(1, encode(fsm.bootstrap()))
    assert identity() == b"c" * 16
    assert ClusterIdentity(Machine(), tmp_path)() == b"c" * 16


@pytest.mark.parametrize("content", ["", "xyz", "00"])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(LogError, match=FILE):
        ClusterIdentity(Machine(), tmp_path)


def test_the_id_is_known_before_the_log_tells(tmp_path: Path) -> None:
    machine = Machine()
    identity = ClusterIdentity(machine, tmp_path)
    assert identity() == b""
    machine.apply(1, encode(fsm.bootstrap()))
    assert identity() == b"c" * 16
    assert ClusterIdentity(Machine(), tmp_path)() == b"c" * 16
    pieces = iter(list(machine.snapshot()))
    other = Machine()
    (tmp_path / "other").mkdir()
    its = ClusterIdentity(other, tmp_path / "other")
    other.restore(pieces)
    assert its() == b"c" * 16
