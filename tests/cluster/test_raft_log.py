"""The replicated log as its users see it, over loopback."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import msgpack
import pytest

from support.raftlog import Cluster, ListMachine, eventually, free_ports, loopback_members
from wgmap_cluster.raft.disk import OutFile, RealDisk
from wgmap_cluster.raft.interface import MAX_COMMAND_BYTES, LogError, Member, Outcome, RefusedError
from wgmap_cluster.raft.log import RaftLog
from wgmap_cluster.raft.node import ApplyFailed
from wgmap_cluster.raft.transport import MeshTransport


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[Cluster]:
    cluster = Cluster(tmp_path, 3)
    await cluster.start()
    await cluster.leader()
    yield cluster
    await cluster.stop()


async def test_a_single_server_applies_and_keeps_data_over_a_restart(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 1)
    await cluster.start()
    log = await cluster.leader()
    results = [await log.propose(b"%d" % number) for number in range(20)]
    assert {result.outcome for result in results} == {Outcome.APPLIED}
    assert [result.result for result in results] == list(range(1, 21))
    await cluster.stop()

    await cluster.start()
    assert cluster.machines["ms1"].commands == [b"%d" % number for number in range(20)]
    assert (await (await cluster.leader()).propose(b"more")).result == 21
    await cluster.stop()


async def test_three_servers_apply_alike_from_leader_and_follower(three: Cluster) -> None:
    leader, follower = await three.leader(), three.follower()
    done = await asyncio.gather(
        *(leader.propose(b"l%d" % number) for number in range(100)),
        *(follower.propose(b"f%d" % number) for number in range(100)),
    )
    assert {proposal.outcome for proposal in done} == {Outcome.APPLIED}
    await three.settled()
    first, *others = (machine.commands for machine in three.machines.values())
    assert len(first) == 200
    assert all(commands == first for commands in others)


async def test_the_result_is_what_apply_returned_on_the_proposing_server(three: Cluster) -> None:
    await (await three.leader()).propose(b"one")
    follower = three.follower()
    proposal = await follower.propose(b"two")
    assert (proposal.outcome, proposal.result) == (Outcome.APPLIED, 2)


async def test_a_read_on_a_follower_sees_what_was_acknowledged_before(three: Cluster) -> None:
    leader, follower = await three.leader(), three.follower()
    name = next(name for name, log in three.logs.items() if log is follower)
    for number in range(30):
        proposal = await leader.propose(b"%d" % number)
        read = await follower.read_barrier()
        assert read is not None
        assert read >= proposal.index
        assert b"%d" % number in three.machines[name].commands


async def test_servers_answer_one_another_beside_the_log(three: Cluster) -> None:
    first, second = three.logs["ms1"], three.logs["ms2"]

    async def answer(question: bytes) -> bytes:
        await asyncio.sleep(0)
        return b"x" * 100_000 if question == b"much" else b"ms2 heard " + question

    assert await first.ask("ms2", b"before", 0.3) is None
    second.on_asked(answer)
    assert await first.ask("ms2", b"a") == b"ms2 heard a"
    asked = [b"%d" % number for number in range(10)]
    answers = await asyncio.gather(*(first.ask("ms2", one) for one in asked))
    assert answers == [b"ms2 heard " + one for one in asked]
    assert await first.ask("ms2", b"much", 0.3) is None, "an answer has a bound"
    assert await first.ask("ms2", b"x" * 100_000, 0.3) is None, "and a question"
    await three.stop("ms2")
    assert await first.ask("ms2", b"b", 0.3) is None
    assert (await first.propose(b"on it goes")).outcome is Outcome.APPLIED


async def test_a_cut_off_server_confirms_nothing(three: Cluster) -> None:
    leader = await three.leader()
    name = next(name for name, log in three.logs.items() if log is leader)
    await three.stop(*(other for other in list(three.logs) if other != name))
    assert await leader.read_barrier(0.3) is None
    assert (await leader.propose(b"x", 0.3)).outcome is Outcome.UNKNOWN
    await eventually(lambda: leader.status().leader is None)
    assert (await leader.propose(b"x", 0.1)).outcome is Outcome.NOT_APPLIED


async def test_another_server_takes_over_and_nothing_is_lost(three: Cluster) -> None:
    leader = await three.leader()
    for number in range(10):
        assert (await leader.propose(b"%d" % number)).outcome is Outcome.APPLIED
    name = next(name for name, log in three.logs.items() if log is leader)
    await three.stop(name)
    proposal = await three.follower().propose(b"after", 5.0)
    assert proposal.outcome is Outcome.APPLIED
    await three.start(name)
    await three.settled()
    wanted = [b"%d" % number for number in range(10)] + [b"after"]
    assert [machine.commands for machine in three.machines.values()] == [wanted] * 3


async def test_an_exception_in_apply_is_the_same_result_everywhere(three: Cluster) -> None:
    proposal = await three.follower().propose(b"raise")
    assert proposal.outcome is Outcome.APPLIED
    assert proposal.result == ApplyFailed("ValueError")
    assert (await three.follower().propose(b"fine")).result == 1


async def test_a_note_reaches_the_other_servers(three: Cluster) -> None:
    three.logs["ms1"].publish(b"applied 7")
    others = (three.logs["ms2"], three.logs["ms3"])
    await eventually(lambda: all(o.status().others["ms1"].note == b"applied 7" for o in others))
    status = others[0].status().others["ms1"]
    assert status.connected
    assert status.heard_s is not None
    assert status.heard_s < 1.0


async def test_a_command_has_a_size_limit(three: Cluster) -> None:
    leader = await three.leader()
    with pytest.raises(ValueError, match="32769 bytes"):
        await leader.propose(b"x" * (MAX_COMMAND_BYTES + 1))
    sizes = (MAX_COMMAND_BYTES, MAX_COMMAND_BYTES - 1, 1, 0)
    done = [await three.follower().propose(b"x" * size) for size in sizes]
    assert {proposal.outcome for proposal in done} == {Outcome.APPLIED}


async def test_a_server_with_a_wiped_disk_comes_back_only_as_a_new_one(
    three: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    leader = await three.leader()
    name = next(name for name, log in three.logs.items() if log is not leader)
    other = next(n for n, log in three.logs.items() if log is not leader and n != name)
    assert (await leader.propose(b"kept")).outcome is Outcome.APPLIED
    await three.settled()
    await three.stop(name)
    for file in (three.base / name).iterdir():
        file.unlink()
    await three.start(name)
    await eventually(lambda: f"{name} came back with another disk" in caplog.text)
    assert not leader.status().others[name].connected
    assert (await leader.remove_member(name)).outcome is Outcome.APPLIED
    member = next(member for member in three.members if member.name == name)
    assert (await three.logs[other].add_member(member)).outcome is Outcome.APPLIED
    await three.settled()
    assert three.machines[name].commands == [b"kept"]


async def test_figures_tell_what_the_log_does(three: Cluster) -> None:
    leader, follower = await three.leader(), three.follower()
    before = leader.figures()
    for number in range(10):
        assert (await follower.propose(b"%d" % number)).outcome is Outcome.APPLIED
    assert await leader.read_barrier() is not None
    await three.settled()
    after = leader.figures()
    assert (after["leading"], follower.figures()["leading"]) == (1, 0)
    assert after["commit"] == after["applied"] == after["last"] == before["last"] + 10
    assert after["syncs"] > before["syncs"]
    assert 0 < after["syncs_longest_us"] <= after["syncs_us"]
    assert (after["reads_confirmed"], after["elections_won"], after["connected"]) == (1, 1, 2)
    assert after["term"] == leader.status().term
    assert follower.figures()["proposals_applied"] == 10
    assert {name for name in after if name.startswith("lag.")} == {
        f"lag.{name}" for name, log in three.logs.items() if log is not leader
    }
    await eventually(lambda: not any(v for k, v in leader.figures().items() if k[:3] == "lag"))
    leader.take_snapshot()
    await eventually(lambda: leader.figures()["snapshot"] == after["applied"])
    await leader.stop()
    assert leader.figures() == {}


async def test_a_frame_that_makes_no_sense_costs_its_connection_and_nothing_else(
    three: Cluster,
) -> None:
    """A server with a bug, or of a version that it should not be, must not end the others."""
    leader, follower = await three.leader(), three.follower()
    name = next(name for name, log in three.logs.items() if log is leader)
    connection = follower._transport._connections[name]  # type: ignore[union-attr]
    connection.send(b"\xc1 no message")
    connection.flush()
    await eventually(lambda: leader.figures()["frames_broken"] == 1)
    await eventually(lambda: leader.figures()["connected"] == 2)
    assert (await follower.propose(b"x", 10.0)).outcome is Outcome.APPLIED
    assert three.failures == {}


async def test_leadership_is_handed_over_without_losing_a_proposal(three: Cluster) -> None:
    leader = await three.leader()
    handing = asyncio.ensure_future(three.follower().hand_over())  # any server can ask
    done = await asyncio.gather(*(three.follower().propose(b"%d" % n) for n in range(50)))
    assert {proposal.outcome for proposal in done} == {Outcome.APPLIED}
    assert await three.leader() is three.logs[await handing] is not leader


async def test_leadership_goes_to_the_server_that_is_named(three: Cluster) -> None:
    leader = await three.leader()
    name = next(name for name, log in three.logs.items() if log is not leader)
    assert await leader.hand_over(name) == name
    assert await leader.hand_over(name) == name  # it leads already
    with pytest.raises(RefusedError, match="ms9 is not connected"):
        await leader.hand_over("ms9", deadline_s=0.3)


@pytest.mark.parametrize(
    ("versions", "further", "talks"),
    [
        ([1, 1], [], True),
        ([1, 2], [], True),  # a later version that still speaks to ours
        ([1, 7], ["what it adds"], True),
        ([2, 3], [], False),
        ([0, 0], [], False),
        (1, [], False),
        (["1", "1"], [], False),
    ],
)
async def test_servers_of_two_versions_talk_where_there_is_one_that_both_read(
    versions: object, further: list[object], talks: bool, tmp_path: Path
) -> None:
    """As in a rolling upgrade: the other one is of a later version, or this one is."""
    own, other = loopback_members(2)
    log = RaftLog(own.name, [own, other], tmp_path, ListMachine())
    await log.start()
    address, port = own.address.rsplit(":", 1)
    hello = msgpack.packb(["wgmap-raft", versions, other.name, own.name, bytes(8), *further])
    reader, writer = await asyncio.open_connection(address, int(port))
    writer.write(len(hello).to_bytes(4, "little") + hello)
    answered = b""
    with contextlib.suppress(ConnectionError):
        answered = await asyncio.wait_for(reader.read(4), 5)
    assert bool(answered) == talks
    assert log.status().others[other.name].connected == talks
    writer.close()
    await log.stop()


async def test_a_server_that_knows_nothing_of_the_others_is_not_let_in(three: Cluster) -> None:
    leader = await three.leader()
    term = leader.status().term
    address, port = three.members[0].address.rsplit(":", 1)
    for greeting in (
        b"\x80\x04\x95garbage",
        msgpack.packb(["wgmap-raft", [1, 1], "ms9", "ms1", bytes(8)]),
        msgpack.packb(["wgmap-raft", [1, 1], "ms2", "ms3", bytes(8)]),
        msgpack.packb(["wgmap-raft", [1, 1], ["ms2"], "ms1", bytes(8)]),
        msgpack.packb("readonly"),
        bytes(5000),
    ):
        reader, writer = await asyncio.open_connection(address, int(port))
        writer.write(len(greeting).to_bytes(4, "little") + greeting)
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(100), 5) == b""
        writer.close()
    assert (await leader.propose(b"x")).outcome is Outcome.APPLIED
    assert leader.status().term == term


class FullDisk(RealDisk):
    """Fails every sync once ``full`` is set."""

    full = False

    def append(self, path: Path) -> OutFile:
        return FullFile(super().append(path), self)


class FullFile:
    def __init__(self, file: OutFile, disk: FullDisk) -> None:
        self._file, self._disk = file, disk

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def sync(self) -> None:
        if self._disk.full:
            raise LogError("raft.wal: cannot sync: No space left on device")
        self._file.sync()

    def close(self) -> None:
        self._file.close()


async def test_a_failure_is_told_once_and_nothing_hangs(tmp_path: Path) -> None:
    failures: list[LogError] = []
    disk = FullDisk()
    member = loopback_members(1)
    log = RaftLog("ms1", member, tmp_path, ListMachine(), disk=disk, on_fatal=failures.append)
    await log.start()
    assert (await log.propose(b"kept")).outcome is Outcome.APPLIED
    disk.full = True
    waiting = [asyncio.ensure_future(log.propose(b"x")) for _ in range(5)]
    assert {p.outcome for p in await asyncio.gather(*waiting)} == {Outcome.UNKNOWN}
    assert [str(failure) for failure in failures] == [
        "raft.wal: cannot sync: No space left on device"
    ]
    assert (await log.propose(b"y")).outcome is Outcome.NOT_APPLIED
    assert await log.read_barrier() is None
    with pytest.raises(LogError, match="No space left"):
        log.status()
    await log.stop()


async def test_callers_are_not_left_waiting_by_a_stop(three: Cluster) -> None:
    leader = await three.leader()
    name = next(name for name, log in three.logs.items() if log is leader)
    await three.stop(*(other for other in list(three.logs) if other != name))
    read = asyncio.ensure_future(leader.read_barrier(30.0))
    proposal = asyncio.ensure_future(leader.propose(b"x", 30.0))
    await asyncio.sleep(0)
    await three.stop(name)
    assert await asyncio.wait_for(read, 1) is None
    assert (await asyncio.wait_for(proposal, 1)).outcome is not Outcome.APPLIED


async def test_ipv6_addresses_work(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    log = RaftLog("ms1", [Member("ms1", f"[::1]:{port}")], tmp_path, ListMachine())
    await log.start()
    assert (await log.propose(b"x")).outcome is Outcome.APPLIED
    _, writer = await asyncio.open_connection("::1", port)
    writer.close()
    await log.stop()


@pytest.mark.parametrize("address", ["ms1.example:4343", "::1:4343", "10.0.0.1", "[10.0.0.1]:1"])
def test_only_literals_are_addresses(address: str, tmp_path: Path) -> None:
    with pytest.raises(LogError, match="ms1"):
        RaftLog("ms1", [Member("ms1", address)], tmp_path, ListMachine())


async def test_a_server_dials_again_when_its_device_was_gone(
    three: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempt while it was gone ended the dialling for ever."""
    leader = await three.leader()
    transport = three.logs["ms3"]._transport  # it dials both others
    assert isinstance(transport, MeshTransport)
    attempts: list[str] = []

    def gone() -> socket.socket:
        attempts.append("one")
        raise LogError("cannot bind to mesh: No such device")

    with monkeypatch.context() as patch:
        patch.setattr(transport, "_socket", gone)
        for connection in list(transport._connections.values()):
            connection.abort("test")
        await eventually(lambda: len(attempts) >= 2)
    await eventually(lambda: all(o.connected for o in three.logs["ms3"].status().others.values()))
    assert (await leader.propose(b"x", 10.0)).outcome is Outcome.APPLIED
    await three.settled()
