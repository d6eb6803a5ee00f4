"""What servers of the log meet in long lives: old versions, no descriptors, days of absence."""

import asyncio
import resource
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.raftlog import Cluster, ListMachine, eventually
from support.raftprocess import ProcessCluster
from wgmap_cluster.raft.interface import CannotApplyError, Outcome
from wgmap_cluster.raft.log import RaftLog
from wgmap_cluster.raft.settings import Settings
from wgmap_cluster.raft.transport import MeshTransport


class OldMachine(ListMachine):
    """Of a version that does not know the command b"new"."""

    def apply(self, index: int, command: bytes) -> object:
        if command == b"new":
            raise CannotApplyError("upgrade it")
        return super().apply(index, command)


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[Cluster]:
    cluster = Cluster(tmp_path, 3, replace(Settings(), snapshot_entries=200, retain_entries=20))
    await cluster.start()
    yield cluster
    await cluster.stop()


async def test_an_old_server_stops_at_a_new_command_and_goes_on_once_upgraded(
    three: Cluster,
) -> None:
    leader = await three.leader()
    name = next(name for name, log in three.logs.items() if log is not leader)
    three.machines[name].__class__ = OldMachine
    assert (await leader.propose(b"known")).outcome is Outcome.APPLIED
    assert (await leader.propose(b"new")).outcome is Outcome.APPLIED
    await eventually(lambda: name in three.failures)
    assert isinstance(three.failures[name], CannotApplyError)
    assert three.machines[name].commands == [b"known"]

    await three.stop(name)  # the others go on without it
    assert (await leader.propose(b"later")).outcome is Outcome.APPLIED
    await three.start(name)
    await three.settled()
    assert three.machines[name].commands == [b"known", b"new", b"later"]


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Let this process open nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_without_descriptors_nothing_is_lost_and_afterwards_all_connect_again(
    three: Cluster,
) -> None:
    leader = await three.leader()
    name = next(name for name, log in three.logs.items() if log is not leader)
    assert (await leader.propose(b"before")).outcome is Outcome.APPLIED
    with no_descriptors():
        for connection in _connections(three.logs[name]).values():
            connection.abort("test")  # dialling and accepting must fail now, for a while
        await asyncio.gather(*(leader.propose(b"%d" % number) for number in range(20)))
        assert not leader.status().others[name].connected
    await eventually(lambda: leader.status().others[name].connected, 20)
    assert (await three.logs[name].propose(b"after", 10.0)).outcome is Outcome.APPLIED
    await three.settled()
    assert three.failures == {}
    assert three.machines[name].commands == _machine(three, leader).commands


async def test_a_snapshot_that_cannot_be_opened_stops_the_server_with_its_name(
    three: Cluster,
) -> None:
    leader = await three.leader()
    with no_descriptors():
        leader.take_snapshot()
        await eventually(lambda: len(three.failures) == 1)
    (failure,) = three.failures.values()
    assert "raft.snapshot" in str(failure)
    assert "Too many open files" in str(failure)


@pytest.mark.slow
@pytest.mark.timeout(150)
async def test_a_follower_that_was_away_for_more_than_thirty_seconds_catches_up(
    tmp_path: Path,
) -> None:
    """The library goes on for 30 s as if it were connected; snapshots pass the follower by."""
    async with ProcessCluster(tmp_path, 3, snapshot_entries=200, retain_entries=20) as cluster:
        leader = await cluster.leader()
        away = next(server for server in cluster.servers if server is not leader)
        away.signal(signal.SIGSTOP)
        try:
            for _ in range(31):
                for _ in range(20):
                    await cluster.write(leader)
                await asyncio.sleep(1.0)
        finally:
            away.signal(signal.SIGCONT)
        assert len(cluster.acknowledged) > 400
        assert await cluster.leader() is leader  # whoever comes back disturbs nobody
        await cluster.require_nothing_lost()


def _connections(log: RaftLog) -> dict[str, Any]:
    assert isinstance(log._transport, MeshTransport)
    return dict(log._transport._connections)


def _machine(cluster: Cluster, log: RaftLog) -> ListMachine:
    return next(cluster.machines[name] for name, each in cluster.logs.items() if each is log)
