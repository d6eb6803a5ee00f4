"""Chaos for the replicated log, short and seeded; ``make chaos-log`` runs it for long."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from support.lab import program, wait_until
from wgmap import clock
from wgmap_chaos.lab import removal
from wgmap_chaos.logchaos.cluster import cluster
from wgmap_chaos.logchaos.network import Network, network
from wgmap_chaos.logchaos.run import Report, run
from wgmap_chaos.logchaos.server import SETTINGS

CUT_S = 35.0 if os.environ.get("WGMAP_LONG") else 4.0
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


def test_a_follower_that_was_cut_off_for_long_comes_back_and_disturbs_nobody(
    tmp_path: Path,
) -> None:
    """For half a minute, after which the library itself gives connections up, with WGMAP_LONG."""
    with network(3) as made:
        asyncio.run(_cut_off(made, tmp_path))


async def _cut_off(made: Network, base: Path) -> None:
    async with cluster(made, base, "none") as servers:
        leader = await servers.leader()
        assert leader is not None
        before = await leader.call("look")
        away = next(server for server in servers.servers if server is not leader)
        others = {server.number for server in servers.servers} - {away.number}
        await made.cut({cut for n in others for cut in ((n, away.number), (away.number, n))})
        end, number = clock.now() + CUT_S, 0
        while clock.now() < end or number < 2 * SETTINGS.snapshot_entries:  # so it needs a snapshot
            puts = (leader.call("put", key=1, number=number + each) for each in range(100))
            done = await asyncio.gather(*puts)
            assert {reply["outcome"] for reply in done} == {"applied"}
            number += 100
        lags = await away.call("look")
        await made.cut(())
        await servers.await_agreement(settled=True)
        after = await away.call("look")
    assert lags["index"] < number <= after["index"]
    assert (after["leader"], after["term"]) == (leader.name, before["term"])
