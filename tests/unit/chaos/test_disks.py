"""What a trace of system calls says of bytes that were not synced, and the end of a trace."""

import asyncio
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from support.eventually import eventually
from wgmap_chaos.faults import disks
from wgmap_chaos.faults.disks import traced, unsynced
from wgmap_chaos.lab import removal

TRACE = """\
101 write(7, "abc"..., 300) = 300
101 fdatasync(7 <unfinished ...>
102 write(7, "abc"..., 40) = 40
101 <... fdatasync resumed>)            = 0
102 write(7, "abc"..., 7) = 7
102 write(7, "abc"..., 9) = -1 ENOSPC (No space left on device)
102 fdatasync(7)                        = -1 EIO (Input/output error)
102 write(7, "abc"..., 1 <unfinished ...>
102 +++ killed by SIGKILL +++
"""


def test_what_was_written_after_the_last_sync_is_counted() -> None:
    assert unsynced(TRACE) == 7
    assert unsynced("") == 0
    assert unsynced(TRACE.partition("101 <... fdatasync")[0]) == 340


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
async def test_a_trace_ends_though_strace_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped, it does not hear that it is to end, as it does not where it waits for ever."""
    monkeypatch.setattr(disks, "LETS_GO_S", 0.2)
    script = "import time\nwhile True: time.sleep(0.01)"
    traced_one = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
    try:
        async with traced(traced_one.pid, tmp_path / "trace"):
            tracer = tracer_of(traced_one.pid)
            os.kill(tracer, signal.SIGSTOP)
            await eventually(lambda: "T" in state_of(tracer))
        assert not removal.alive(tracer)
        assert tracer_of(traced_one.pid) == 0
        assert removal.alive(traced_one.pid)
    finally:
        traced_one.kill()
        await traced_one.wait()


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def tracer_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("TracerPid:")[2].split()[0])
