"""A wall clock that jumps for one process, and nothing else that changes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wgmap_chaos.faults import wallclock
from wgmap_chaos.faults.wallclock import WallClock
from wgmap_chaos.lab import topology

# Says what all clocks and a short wait say, whenever it is given a line.
TELLER = """
import datetime, json, sys, threading, time
for line in sys.stdin:
    begun = time.monotonic()
    threading.Event().wait(0.01)
    time.sleep(0.01)
    told = [time.time(), time.clock_gettime(time.CLOCK_REALTIME), time.time_ns() / 1e9,
            datetime.datetime.now(datetime.UTC).timestamp()]
    others = [time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME), time.monotonic() - begun]
    print(json.dumps([told, others]), flush=True)
"""


@pytest.mark.parametrize("jump_s", [-400 * 86_400.0, -0.5, 3600.0, 400 * 86_400.0])
def test_it_jumps_at_once_and_back(tmp_path: Path, jump_s: float) -> None:
    library = wallclock.build(tmp_path)
    plan = topology.plan(tmp_path, 1, 0)
    (tmp_path / "config").mkdir()
    added = wallclock.environments(library)(plan, plan.servers[0])
    clock = wallclock.of(plan.paths, "ms1")
    with subprocess.Popen(
        [sys.executable, "-c", TELLER], env={**os.environ, **added}, text=True, bufsize=1,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        for wanted in (0.0, jump_s, 0.0):
            clock.jump(wanted)
            told, (monotonic, boot, waited) = ask(process)
            now = wall()
            assert told == pytest.approx([now + wanted] * len(told), abs=0.2)
            assert (monotonic, boot) == pytest.approx(clocks(), abs=0.2)
            assert waited >= 0.02
        assert process.stdin is not None
        process.stdin.close()


def test_without_a_file_the_clock_is_right(tmp_path: Path) -> None:
    library = wallclock.build(tmp_path)
    absent = {"LD_PRELOAD": str(library), "WGMAP_WALL_CLOCK": str(tmp_path / "absent")}
    argv = [sys.executable, "-c", "import time; print(time.time())"]
    told = subprocess.run(argv, env={**os.environ, **absent}, capture_output=True, check=True)
    assert float(told.stdout) == pytest.approx(wall(), abs=1.0)


def test_a_new_clock_is_right(tmp_path: Path) -> None:
    clock = WallClock(tmp_path / "clock")
    clock.make()
    assert clock.path.read_bytes() == bytes(8)
    clock.jump(-1.5)
    assert int.from_bytes(clock.path.read_bytes(), sys.byteorder, signed=True) == -1_500_000_000


def ask(process: subprocess.Popen[str]) -> tuple[list[float], list[float]]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    told, others = json.loads(process.stdout.readline())
    return told, others


def wall() -> float:
    return time.clock_gettime(time.CLOCK_REALTIME)


def clocks() -> tuple[float, float]:
    return time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME)
