"""Chaos for the replicated log, short and seeded; ``make chaos-log`` runs it for long."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from support.lab import program, wait_until
from wgmap_chaos.lab import removal
from wgmap_chaos.logchaos.run import Report, run

PATH = os.environ["PATH"]
pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(200)]


def test_three_servers_keep_every_promise_under_faults() -> None:
    report = run(3, seed=1, seconds=25)
    assert report.verdict.broken == 0, report.text()
    assert report.writes["applied"] > 100
    assert report.reads > 50
    assert sum(report.faults.values()) >= 3


@pytest.mark.parametrize(("plant", "kind"), [("early-ack", "lost"), ("local-read", "stale")])
def test_a_promise_that_is_broken_on_purpose_is_noticed(plant: str, kind: str) -> None:
    report = _until_noticed(plant, kind)
    assert getattr(report.verdict, kind) > 0, report.text()


def _until_noticed(plant: str, kind: str) -> Report:
    """Run with other seeds if need be: whether a fault hurts is a matter of luck."""
    report = run(3, seed=2, seconds=8, plant=plant)
    for seed in (3, 4):
        if getattr(report.verdict, kind):
            break
        report = run(3, seed, seconds=8, plant=plant)
    return report


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_ended_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    argv = [program("wgmap-chaos"), "log", "--minutes", "5", "--seed", "1"]
    run = subprocess.Popen(
        argv, stderr=subprocess.PIPE, text=True, env={"TMPDIR": str(tmp_path), "PATH": PATH}
    )
    try:
        wait_until(lambda: len(list(_servers(run.pid))) == 3, "three servers")
        servers = list(_servers(run.pid))
        spaces = {removal.namespace_id(Path(f"/proc/{pid}/ns/net")) for pid in servers}
        for _ in range(3):  # an impatient operator
            run.send_signal(number)
        _, said = run.communicate(timeout=30)
    finally:
        run.terminate()  # if it did not come so far
        run.wait(timeout=30)
    assert run.returncode == 1
    assert f"interrupted by {number.name}" in said
    assert not any(removal.alive(pid) for pid in servers)
    left = {removal.namespace_id(path) for path in removal.NETNS_ROOT.iterdir()}
    assert not spaces & left
    assert list(tmp_path.iterdir()) == []


def _servers(parent: int) -> Iterator[int]:
    """Pids of the server processes of a run that have entered their namespaces."""
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        line = b""
        with suppress(OSError):  # a program that made the network, and has ended
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"wgmap_chaos.logchaos.server" in line and not line.startswith(b"ip"):
            yield int(pid)
