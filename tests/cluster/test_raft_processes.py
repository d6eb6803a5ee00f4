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
from wgmap_cluster.raft.inspect import check_state

BUSY = {
    "snapshot_entries": 150, "retain_entries": 20, "install_timeout_s": 1.5,
    "chunk_bytes": 512, "window_bytes": 4096,
}  # fmt: skip
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


# What is written at each moment, and the figure that rises once it is whole.
MOMENTS = {
    "snapshot": ("raft.snapshot.new", "snapshots_written"),
    "compaction": ("raft.wal.new", "snapshots_written"),
    "install": ("raft.snapshot.in", "snapshots_installed"),
}
HITS, ATTEMPTS = 3, 15


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("moment", MOMENTS)
async def test_kill_9_in_the_middle_of(moment: str, tmp_path: Path) -> None:
    """Under way for a short while only: who comes too late tries again."""
    helper, figure = MOMENTS[moment]
    small = {"chunk_bytes": 128, "window_bytes": 1024} if moment == "install" else {}
    hits = attempts = 0
    async with ProcessCluster(tmp_path, 3, **{**BUSY, **small}) as busy:
        victim = busy.servers[1]
        async with writing(busy):
            while hits < HITS and attempts < ATTEMPTS:
                attempts += 1
                await victim.kill()
                if moment == "install":
                    await _logs_begin_behind(busy, victim)
                hits += await _kill_while_writing(victim, victim.state_dir / helper, figure)
                await more(busy, 50)
                await victim.start()
        await busy.require_nothing_lost()
    assert hits == HITS, f"{hits} in {attempts}"


async def _logs_begin_behind(cluster: ProcessCluster, down: ServerProcess) -> None:
    """Have the others write until none of them has in its log what a server lacks that is down.

    An install that was under way when it was killed holds their logs for a while.
    """
    state = check_state(down.state_dir)
    has = max(state.last_index, state.snapshot_index)
    async with asyncio.timeout(40):
        for server in cluster.servers:
            while server is not down and (await server.call("figures"))["first"] <= has:
                await more(cluster, 20)


async def _kill_while_writing(victim: ServerProcess, helper: Path, figure: str) -> bool:
    """Start a server and kill it while it writes a file; False where that came too late."""
    helper.unlink(missing_ok=True)  # noqa: ASYNC240  # left by the one before
    await victim.start()
    written = asyncio.create_task(_rises(victim, figure))
    async with asyncio.timeout(30):
        while not helper.exists() and not written.done():  # noqa: ASYNC110, ASYNC240  # a moment
            await asyncio.sleep(0)
    written.cancel()
    await victim.kill()
    return helper.exists()  # noqa: ASYNC240


async def _rises(server: ServerProcess, figure: str) -> None:
    while not (await server.call("figures")).get(figure):  # noqa: ASYNC110  # another process
        await asyncio.sleep(0.02)


@pytest.mark.slow
async def test_a_stopped_leader_comes_back_without_a_lie(busy: ProcessCluster) -> None:
    leader = await busy.leader()
    others = [server for server in busy.servers if server is not leader]
    async with writing(busy, each=2):
        await more(busy, 50)
        leader.signal(signal.SIGSTOP)
        pending = [asyncio.create_task(busy.write(leader)) for _ in range(5)]
        read = asyncio.create_task(leader.call("read"))
        before = [(await other.call("figures"))["first"] for other in others]
        await more(busy, 400)
        after = [(await other.call("figures"))["first"] for other in others]
        assert all(then < now for then, now in zip(before, after, strict=True))  # compacted
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
@pytest.mark.parametrize(
    ("helper", "call", "error", "text"),
    [
        ("raft.snapshot.new", "write", "ENOSPC", "cannot write: No space left on device"),
        ("raft.snapshot.new", "fdatasync", "EIO", "cannot sync: Input/output error"),
        ("raft.wal.new", "write", "ENOSPC", "cannot write: No space left on device"),
        ("raft.wal.new", "rename", "EIO", "cannot replace: Input/output error"),
    ],
)
async def test_a_disk_that_fails_in_a_snapshot_or_a_compaction_ends_the_server_and_loses_nothing(
    helper: str, call: str, error: str, text: str, tmp_path: Path
) -> None:
    async with ProcessCluster(tmp_path, 3, **BUSY) as cluster:
        victim = cluster.servers[0]
        await victim.kill()
        path = victim.state_dir / helper
        await victim.start(*STRACE, "-P", str(path), "-e", f"inject={call}:error={error}")
        async with writing(cluster):
            code, said = await victim.wait()
            await more(cluster, 50)
            await victim.start()
        await cluster.require_nothing_lost()
    assert code == 70
    assert text in said
    assert f"fatal: {victim.state_dir}/{helper.removesuffix('.new')}" in said


@needs_strace
@pytest.mark.slow
async def test_a_leader_whose_disk_blocks_is_replaced_and_what_it_says_later_is_true(
    tmp_path: Path,
) -> None:
    """Its loop waits for the disk with it, so it falls silent, and another one leads."""
    async with ProcessCluster(tmp_path, 3) as cluster:
        victim = cluster.servers[0]
        await victim.kill()
        trace = (*STRACE, "-P", str(victim.state_dir / "raft.wal"))
        await victim.start(*trace, "-e", "inject=fdatasync:delay_enter=3000000:when=200")
        await cluster.leader()
        assert (await victim.call("hand_over", target=victim.name))["leader"] == victim.name
        others = [server for server in cluster.servers if server is not victim]
        async with writing(cluster):
            async with asyncio.timeout(30):
                while await _leader_among(others) in (None, victim.name):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            await more(cluster, 100)
        await cluster.require_nothing_lost()
        longest = (await victim.call("figures"))["syncs_longest_us"]
    assert longest >= 3_000_000


async def _leader_among(servers: list[ServerProcess]) -> str | None:
    """Whom all of them follow, None where they differ."""
    leaders = {(await server.call("status"))["leader"] for server in servers}
    return leaders.pop() if len(leaders) == 1 else None


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
