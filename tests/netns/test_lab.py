"""``wgmap-chaos lab`` as operators and tools use it."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.lab import chaos, leftovers, program, wait_until
from wgmap_chaos.lab import removal, topology

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A directory for a lab, of which nothing is left in any case."""
    yield tmp_path / "lab"
    chaos(tmp_path / "lab", "down")
    assert leftovers(tmp_path / "lab") == []


def test_down_may_be_repeated_and_needs_no_lab(directory: Path) -> None:
    for _ in range(2):
        done = chaos(directory, "down")
        assert (done.returncode, done.stderr) == (0, "")
    assert not directory.exists()


@pytest.mark.parametrize("command", [["set", "--delay", "1"], ["start-servers"], ["start-agents"]])
def test_commands_on_no_lab_say_so(directory: Path, command: list[str]) -> None:
    done = chaos(directory, *command)
    assert done.returncode == 1
    assert f"no lab in {directory}" in done.stderr


def begun(directory: Path, depth: int) -> subprocess.Popen[bytes]:
    """Start ``lab up`` and return once it has made ``depth`` namespaces and started programs."""
    up = subprocess.Popen(
        [program("wgmap-chaos"), "lab", "up", "--dir", str(directory)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    lab = topology.lab_id(directory)
    wait_until(lambda: len(removal.namespaces(lab)) >= depth or up.poll() is not None, "begins")
    return up


@pytest.mark.parametrize("depth", [1, 5, 8])
def test_down_takes_away_what_a_killed_up_had_made(directory: Path, depth: int) -> None:
    with begun(directory, depth) as up:
        up.kill()
    assert chaos(directory, "down").returncode == 0
    assert leftovers(directory) == []


def test_an_up_that_is_told_to_end_undoes_its_work(directory: Path) -> None:
    with begun(directory, 8) as up:
        up.send_signal(signal.SIGTERM)
        assert up.wait(60) == 1
    assert leftovers(directory) == []


def test_an_up_that_fails_undoes_its_work(directory: Path) -> None:
    done = chaos(directory, "up", env={"WGMAP_TIME_SCALE": "0.001"})
    assert done.returncode == 1
    assert "not within 0 s" in done.stderr or "no end after 0 s" in done.stderr
    assert leftovers(directory) == []
