"""What faults are made of: cuts that count, processes that stand still, broken disks."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.netns import netbed, wait_until
from wgmap_chaos.faults import cuts, memory, processes
from wgmap_chaos.faults.descriptors import limited
from wgmap_chaos.faults.disks import SYNCS, WRITES, injected, traced, unsynced

pytestmark = [pytest.mark.netns]

# Writes a line a turn, and syncs every second one, for ever.
WRITER = """
import os, sys, time
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
for turn in range(10**9):
    try:
        os.write(fd, b"0123456789")
        if turn % 2 == 0:
            os.fdatasync(fd)
    except OSError as error:
        sys.exit(error.errno)
    time.sleep(0.02)
"""


@contextmanager
def writer(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)])
    try:
        wait_until(path.exists, "the writer writes")
        yield process
    finally:
        process.kill()
        process.wait()


async def test_a_cut_drops_and_counts_by_who_is_not_heard() -> None:
    with netbed("ct") as bed:
        left, right = bed.namespace("l"), bed.namespace("r")
        bed.veth(
            left, right, ["192.0.2.1/24", "2001:db8:6::1/64"], ["192.0.2.2/24", "2001:db8:6::2/64"]
        )
        reach = ("ping", "-c1", "-W1")
        left.run(*reach, "192.0.2.2")
        unheard = {"left": ["192.0.2.1", "2001:db8:6::1"], "nobody": ["192.0.2.9"]}
        await cuts.deafen(right.name, "one", unheard)
        await cuts.silence(right.name, "two", {"nine": ["192.0.2.9"]})
        assert "1 received" not in left.run(*reach, "192.0.2.2", check=False)
        assert (await cuts.dropped(right.name, "one"))["nobody"] == 0
        assert (await cuts.dropped(right.name, "one"))["left"] > 0
        await cuts.deafen(right.name, "one", {})
        left.run(*reach, "192.0.2.2")
        assert await cuts.dropped(right.name, "one") == {}
        assert await cuts.dropped(right.name, "two") == {"nine": 0}


async def test_processes_stand_still_go_on_and_die(tmp_path: Path) -> None:
    with writer(tmp_path / "file") as process:
        await processes.stop([process.pid])
        assert processes.standing_still(process.pid)
        await processes.go_on([process.pid])
        assert not processes.standing_still(process.pid)
        await processes.kill([process.pid])
        assert process.wait() == -signal.SIGKILL
        processes.send([process.pid, None], signal.SIGCONT)  # nobody there is no error


@pytest.mark.parametrize(
    ("calls", "error", "number"), [(SYNCS, "EIO", 5), (WRITES, "ENOSPC", 28)], ids=["fails", "full"]
)
async def test_a_disk_that_fails(tmp_path: Path, calls: str, error: str, number: int) -> None:
    path = tmp_path / "file"
    with writer(path) as process:
        rules = ("-P", str(path), "-e", f"trace={calls}", "-e", f"inject={calls}:error={error}")
        async with injected(process.pid, *rules):
            assert await asyncio.to_thread(process.wait, 10) == number


# Takes a megabyte more and holds it, a line a turn; says so when it has it.
EATER = """
import sys
held = []
for line in sys.stdin:
    held.append(bytearray(b"x") * (1 << 20))
    print(len(held), flush=True)
"""
OPENER = """
import os, sys
for line in sys.stdin:
    try:
        print(os.open("/dev/null", os.O_RDONLY), flush=True)
    except OSError as error:
        sys.exit(error.errno)
"""


@contextmanager
def speaker(code: str) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-c", code]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, bufsize=1) as process:
        try:
            yield process
        finally:
            process.kill()


def ask(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    return process.stdout.readline()


@pytest.mark.skipif(bool(memory.missing()), reason=memory.missing())
async def test_a_process_that_gets_no_more_memory_and_one_that_does_again() -> None:
    group = memory.Group(memory.ROOT / f"wgmap-test-{os.getpid()}")
    with speaker(EATER) as process:
        assert ask(process) == "1\n"
        group.fill(process.pid)
        assert any(ask(process) == "" for _ in range(3))  # the kernel has killed it
        assert group.refused() > 0
        assert await asyncio.to_thread(process.wait, 10) == -signal.SIGKILL
        await group.end()
    with speaker(EATER) as process:
        assert ask(process) == "1\n"
        group.fill(process.pid)
        await group.end()
        assert [ask(process) for _ in range(3)] == ["2\n", "3\n", "4\n"]
    await group.end()  # there is none: no error


async def test_a_process_that_can_open_next_to_nothing_more() -> None:
    with speaker(OPENER) as process:
        first = int(ask(process))
        with limited([process.pid], spare=2):
            assert [int(ask(process)) for _ in range(2)] == [first + 1, first + 2]
        assert int(ask(process)) == first + 3
        with limited([process.pid], spare=0):
            assert ask(process) == ""
            assert await asyncio.to_thread(process.wait, 10) == errno.EMFILE


async def test_what_was_not_synced_is_known(tmp_path: Path) -> None:
    path, trace = tmp_path / "file", tmp_path / "trace"
    with writer(path) as process:
        only = ("-P", str(path), "-e", f"trace={WRITES},{SYNCS}")
        async with traced(process.pid, trace, *only):
            size = path.stat().st_size
            wait_until(lambda: path.stat().st_size > size + 50, "it goes on")
            os.kill(process.pid, signal.SIGKILL)
            await asyncio.to_thread(process.wait)
    written = trace.read_text().count("0123456789")
    assert written >= 5
    assert unsynced(trace.read_text()) in (0, 10, 20)
    assert unsynced(trace.read_text().replace("fdatasync", "other")) == 10 * written
