"""Operators at three real logs: any server serves them, and any may die meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support import fsm
from support.raftlog import eventually, loopback_members
from wgmap.addresses import prefix_from_bytes
from wgmap.errors import ChangedError, UnavailableError
from wgmap.wg.keys import PublicKey
from wgmap_cluster.fsm.commands import encode
from wgmap_cluster.fsm.machine import Machine
from wgmap_cluster.raft.interface import Outcome
from wgmap_cluster.raft.log import RaftLog
from wgmap_cluster.replica.notes import ServerNote
from wgmap_cluster.replica.operations import Operations
from wgmap_cluster.replica.requests import Enrolment, PeerChange

WHO = ("root", "now")


@dataclass
class Trio:
    """Three servers with their operations, by name."""

    machines: dict[str, Machine] = field(default_factory=dict)
    logs: dict[str, RaftLog] = field(default_factory=dict)
    operations: dict[str, Operations] = field(default_factory=dict)

    async def start(self, base: Path) -> None:
        members = loopback_members(3)
        for member in members:
            directory = base / member.name
            make(directory)
            machine = self.machines[member.name] = Machine()
            log = self.logs[member.name] = RaftLog(member.name, members, directory, machine)
            self.operations[member.name] = _operations(member.name, machine, log)
            await log.start()
        proposal = await self.logs[await self.leader()].propose(encode(fsm.bootstrap()), 5.0)
        assert proposal.outcome is Outcome.APPLIED

    async def leader(self) -> str:
        """Wait until the running servers agree who leads: a busy machine makes them elect again."""

        def agreed() -> str:
            leaders = {log.status().leader for log in self.logs.values()}
            return leaders.pop() or "" if len(leaders) == 1 else ""

        await eventually(lambda: agreed() in self.logs)
        return agreed()

    async def follower(self) -> str:
        leader = await self.leader()
        return next(name for name in self.logs if name != leader)

    async def stop(self, *names: str) -> None:
        for name in names or list(self.logs):
            await self.logs.pop(name).stop()

    async def agree(self) -> None:
        """Wait until the running servers have the same rows."""

        def rows() -> list[object]:
            return [sorted(self.machines[n].state.rows(), key=repr) for n in self.logs]

        await eventually(lambda: all(each == rows()[0] for each in rows()))


def make(directory: Path) -> None:
    directory.mkdir(parents=True)


def _operations(name: str, machine: Machine, log: RaftLog) -> Operations:
    return Operations(name, machine, log, lambda: ServerNote(machine.index, True, None), 1.0)


@pytest.fixture
async def trio(tmp_path: Path) -> AsyncIterator[Trio]:
    trio = Trio()
    await trio.start(tmp_path / "first")
    yield trio
    await trio.stop()


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[Trio]:
    trio = Trio()
    await trio.start(tmp_path / "second")
    yield trio
    await trio.stop()


def enrolments(count: int) -> list[Enrolment]:
    return [
        Enrolment(
            f"p{n}",
            (prefix_from_bytes(bytes((32, 10, 66, n >> 8, n & 255))),),
            PublicKey(n.to_bytes(4) + b"k" * 28),
        )
        for n in range(count)
    ]


async def imported(trio: Trio, name: str, count: int) -> None:
    many = enrolments(count)
    for start in range(0, count, 100):
        await trio.operations[name].import_peers(many[start : start + 100], *WHO)


async def body(
    pieces: list[bytes], at: int = -1, then: asyncio.Event | None = None
) -> AsyncIterator[bytes]:
    """Yield pieces; ``then`` is set before piece ``at``."""
    for number, piece in enumerate(pieces):
        if number == at and then is not None:
            then.set()
        yield piece


async def test_a_backup_from_a_follower_has_what_the_leader_acknowledged(trio: Trio) -> None:
    await imported(trio, await trio.leader(), 300)
    backup = list(await trio.operations[await trio.follower()].archive.backup(("ann", "now"), None))
    assert sum(piece.count(b"\xa4p299") for piece in backup) > 0


async def test_no_backup_without_a_quorum(trio: Trio) -> None:
    last = await trio.follower()
    await trio.stop(*(name for name in list(trio.logs) if name != last))
    with pytest.raises(UnavailableError, match="quorum"):
        await trio.operations[last].archive.backup(("ann", "now"), None)


# Six servers in one process: 3 s, half a minute at a load of 27 on two processors.
@pytest.mark.timeout(180)
async def test_a_restore_survives_the_death_of_the_leader(trio: Trio, other: Trio) -> None:
    await imported(trio, await trio.follower(), 2000)
    backup = list(await trio.operations[await trio.follower()].archive.backup(("ann", "now"), None))
    via, doomed = await other.follower(), await other.leader()
    half = asyncio.Event()
    archive = other.operations[via].archive
    restoring = asyncio.create_task(
        archive.restore(b"d" * 32, ("p7",), body(backup, len(backup) // 2, half), WHO)
    )
    await half.wait()
    await other.stop(doomed)
    view = await restoring
    assert (view["peers"], view["revoked"]) == (1999, ["p7"])
    await other.agree()
    state = other.machines[via].state
    assert state.peers.keys() == trio.machines[await trio.leader()].state.peers.keys()
    assert state.peers["p7"].revoked
    rows = other.operations[await other.leader()].audit(None, 1)
    assert [(row["action"], row["server"]) for row in rows] == [("restore", via)]


async def test_two_who_restore_the_same_at_once(trio: Trio, other: Trio) -> None:
    await imported(trio, await trio.leader(), 1000)
    backup = list(await trio.operations[await trio.leader()].archive.backup(("ann", "now"), None))
    names = [await other.leader(), await other.follower()]
    views = await asyncio.gather(
        *(other.operations[n].archive.restore(b"d" * 32, (), body(backup), WHO) for n in names)
    )
    assert [view["peers"] for view in views] == [1000, 1000]
    await other.agree()
    actions = [row["action"] for row in other.operations[names[0]].audit(None, 2)]
    assert actions == ["enrol", "restore"], "it is restored once"


async def test_changes_on_condition_from_two_servers(trio: Trio) -> None:
    await imported(trio, await trio.leader(), 1)

    async def change(name: str, limit: int) -> bool:
        try:
            await trio.operations[name].set_peer("p0", PeerChange(limit=limit, revision=1), *WHO)
        except ChangedError:
            return False
        return True

    done = await asyncio.gather(*(change(name, n + 2) for n, name in enumerate(trio.logs)))
    assert sorted(done) == [False, False, True]
    await trio.agree()
