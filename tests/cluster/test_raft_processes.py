"""Real processes: killed, stopped, with a full, broken or slow disk, and attacked."""

import asyncio
import contextlib
import pickle  # noqa: TID251  # to attack with
import random
import shutil
import signal
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.raftlog import eventually
from support.raftprocess import ProcessCluster, ServerProcess

BUSY = {"snapshot_entries": 150, "retain_entries": 20, "chunk_bytes": 512, "window_bytes": 4096}
# Detached, so that the process that is killed and waited for is the server itself.
STRACE = ("strace", "-D", "-f", "-qq", "-o", "/dev/null")
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


@pytest.fixture
async def busy(tmp_path: Path) -> AsyncIterator[ProcessCluster]:
    async with ProcessCluster(tmp_path, 3, **BUSY) as cluster:
        yield cluster


@contextlib.asynccontextmanager
async def writing(cluster: ProcessCluster, each: int = 4) -> AsyncIterator[None]:
    """Keep clients writing to every server."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for server in cluster.servers:
            for _ in range(each):
                tasks.create_task(cluster.write_until(stop, server))
        try:
            yield
        finally:
            stop.set()


async def more(cluster: ProcessCluster, count: int) -> None:
    goal = len(cluster.acknowledged) + count
    await eventually(lambda: len(cluster.acknowledged) >= goal, 20)


@pytest.mark.slow
async def test_kill_9_one_after_another_and_all_at_once(busy: ProcessCluster) -> None:
    rng = random.Random(1)
    async with writing(busy):
        for round_number in range(8):
            await more(busy, 100)
            victims = busy.servers if round_number % 4 == 3 else [rng.choice(busy.servers)]
            await asyncio.gather(*(victim.kill() for victim in victims))
            if len(victims) == 1:
                await more(busy, 100)  # so that it comes back to a snapshot
            for victim in victims:
                await victim.start()
    await busy.require_nothing_lost()
    assert len(busy.acknowledged) > 800


HELPERS = {
    "snapshot": "raft.snapshot.new",
    "compaction": "raft.wal.new",
    "install": "raft.snapshot.in",
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", HELPERS)
async def test_kill_9_in_the_middle_of(moment: str, busy: ProcessCluster) -> None:
    victim = busy.servers[1]
    async with writing(busy):
        for _ in range(3):
            if moment == "install":
                await victim.kill()
                await more(busy, 300)
                await victim.start()
            await _kill_when_there(victim, victim.state_dir / HELPERS[moment])
            await more(busy, 50)
            await victim.start()
    await busy.require_nothing_lost()


async def _kill_when_there(victim: ServerProcess, helper: Path) -> None:
    """Kill a server as soon as it writes a certain file."""
    async with asyncio.timeout(20):
        while not helper.exists():  # noqa: ASYNC110, ASYNC240  # for a moment
            await asyncio.sleep(0)
    await victim.kill()


@pytest.mark.slow
async def test_a_stopped_leader_comes_back_without_a_lie(busy: ProcessCluster) -> None:
    leader = await busy.leader()
    others = [server for server in busy.servers if server is not leader]
    async with writing(busy, each=2):
        await more(busy, 50)
        leader.signal(signal.SIGSTOP)
        pending = [asyncio.create_task(busy.write(leader)) for _ in range(5)]
        read = asyncio.create_task(leader.call("read"))
        await more(busy, 400)  # past a snapshot and a compaction
        count = len(busy.acknowledged)
        leader.signal(signal.SIGCONT)
        reply = await read
        assert reply["at"] is None or reply["count"] >= count
        await asyncio.gather(*pending)
    await busy.require_nothing_lost()
    assert all(server.running for server in others)


@needs_strace
@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        ("fdatasync", "EIO", "cannot sync: Input/output error"),
        ("write", "ENOSPC", "cannot write: No space left on device"),
    ],
)
async def test_a_bad_disk_ends_the_server_and_loses_nothing(
    call: str, error: str, text: str, tmp_path: Path
) -> None:
    async with ProcessCluster(tmp_path, 3) as cluster:
        victim = cluster.servers[0]
        await victim.kill()
        wal = victim.state_dir / "raft.wal"
        inject = f"inject={call}:error={error}:when=30+"
        await victim.start(*STRACE, "-P", str(wal), "-e", inject)
        async with writing(cluster):
            code, said = await victim.wait()
            await more(cluster, 50)
            await victim.start()
        await cluster.require_nothing_lost()
    assert code == 70
    assert f"fatal: {wal}: {text}" in said


@needs_strace
@pytest.mark.slow
async def test_a_single_server_with_a_bad_disk_acknowledges_only_what_is_synced(
    tmp_path: Path,
) -> None:
    async with ProcessCluster(tmp_path, 1) as cluster:
        (server,) = cluster.servers
        await server.kill()
        trace = (*STRACE, "-P", str(server.state_dir / "raft.wal"))
        await server.start(*trace, "-e", "inject=fdatasync:error=EIO:when=20+")
        async with writing(cluster):
            code, said = await server.wait()
        assert (code, "Input/output error" in said) == (70, True)
        await server.start()
        await cluster.require_nothing_lost()


@needs_strace
@pytest.mark.slow
async def test_a_slow_disk_is_slow_and_nothing_else(tmp_path: Path) -> None:
    async with ProcessCluster(tmp_path, 3) as cluster:
        victim = cluster.servers[0]
        await victim.kill()
        inject = "inject=fdatasync:delay_enter=30000"
        await victim.start(*STRACE, "-e", inject)
        async with writing(cluster):
            await more(cluster, 200)
        await cluster.require_nothing_lost()


@pytest.mark.slow
async def test_a_corrupt_middle_stops_the_start_with_file_and_offset(tmp_path: Path) -> None:
    async with ProcessCluster(tmp_path, 1) as cluster:
        (server,) = cluster.servers
        for _ in range(30):
            assert await cluster.write(server) == "applied"
        await server.kill()
        wal = server.state_dir / "raft.wal"
        data = bytearray(wal.read_bytes())
        data[len(data) // 2] ^= 1
        wal.write_bytes(data)
        await server.start()
        code, said = await server.wait()
    assert code == 70
    assert f"fatal: {wal}: corrupt at offset " in said


class Touch:
    """Its pickle makes a file where it is read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self._path,))


@pytest.mark.slow
async def test_a_pickle_on_the_port_runs_nothing(busy: ProcessCluster, tmp_path: Path) -> None:
    trap = tmp_path / "pwned"
    exploit = pickle.dumps(Touch(trap))
    pickle.loads(exploit)
    assert trap.exists()  # it would work
    trap.unlink()
    for member in busy.members:
        host, port = member.address.rsplit(":", 1)
        for payload in (exploit, zlib.compress(exploit)):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(struct.pack("<I", len(payload)) + payload)
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 5) == b""
            writer.close()
    assert not trap.exists()
    assert await busy.write(await busy.leader()) == "applied"
