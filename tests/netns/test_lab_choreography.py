"""Bringing a lab up and starting again what died, with stand-ins for the daemons."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from support import standins
from support.lab import leftovers, program, wait_until
from wgmap.errors import ConflictError
from wgmap_chaos.lab import commands, inventory
from wgmap_chaos.lab.errors import LabError
from wgmap_chaos.lab.inventory import Inventory
from wgmap_chaos.lab.relay import Quality

pytestmark = pytest.mark.netns
# Read before the fixture puts stand-ins in their place.
PYTHON, CHAOS = sys.executable, program("wgmap-chaos")


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setattr(sys, "executable", str(standins.install(programs)))
    yield tmp_path / "lab"
    commands.down(tmp_path / "lab")
    assert leftovers(tmp_path / "lab") == []


@pytest.fixture
def made(directory: Path) -> Inventory:
    return commands.up(directory, 2, 2, Quality(delay_ms=1))


def kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)  # commands ran in this process: it is the parent


def test_up_starts_everything_and_writes_it_down(directory: Path, made: Inventory) -> None:
    assert inventory.read(directory / "lab.json") == made
    for server in made.servers:
        assert None not in server.pids.values()
    for agent in made.agents:
        assert agent.pids["agent"] is not None
        assert agent.config.exists()
    assert commands.set_quality(directory, None, None) == Quality(delay_ms=1)


def test_a_second_up_is_refused_and_harms_nothing(directory: Path, made: Inventory) -> None:
    with pytest.raises(ConflictError, match="there is a lab"):
        commands.up(directory, 2, 2, Quality())
    assert commands.start_servers(directory, []) == made


def test_only_what_died_is_started_again(directory: Path, made: Inventory) -> None:
    kill(made.servers[0].pids["supervisor"])  # its children live on: they are seen out
    after = commands.start_servers(directory, ["ms1"])
    assert not set(after.servers[0].pids.values()) & set(made.servers[0].pids.values())
    assert after.servers[1] == made.servers[1]
    kill(made.agents[1].pids["agent"])
    after = commands.start_agents(directory, [])
    assert after.agents[0] == made.agents[0]
    assert after.agents[1].pids["agent"] not in (None, made.agents[1].pids["agent"])
    assert inventory.read(directory / "lab.json") == after


def test_lab_json_says_null_for_what_is_dead(directory: Path, made: Inventory) -> None:
    kill(made.agents[0].pids["agent"])
    after = commands.start_servers(directory, [])
    assert after.agents[0].pids == {"agent": None}


@pytest.mark.parametrize("name", ["ms2", "a1"])
def test_a_daemon_that_dies_ends_the_start_with_its_last_words(
    directory: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("STANDIN", f"die {name}")
    with pytest.raises(LabError, match=rf"(?s){name} ended with code 1.*the reason why it died"):
        commands.up(directory, 2, 2, Quality())
    assert leftovers(directory) == []
    assert (directory / "log" / f"{name}.log").exists()  # the operator wants to read on


def test_an_agent_that_never_registers_is_named(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN", "deaf a2")
    monkeypatch.setattr(commands, "UP_S", 6.0)
    with pytest.raises(LabError, match=r"(?s)not within 6 s: a2: it is registered.*a2 begins"):
        commands.up(directory, 1, 2, Quality())
    assert leftovers(directory) == []


HOLD = """
import pathlib, signal, sys
from wgmap_chaos.lab.locking import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    signal.pause()
"""


def test_two_commands_on_one_lab_take_turns(directory: Path, made: Inventory) -> None:
    """A command that holds the lab is waited for; when it dies, its lock goes with it."""
    argv = [PYTHON, "-c", HOLD, str(directory)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        argv = [CHAOS, "lab", "set", "--delay", "3", "--dir", str(directory)]
        with subprocess.Popen(argv) as change:
            wait_until(lambda: str(directory) in open_files(change.pid), "it wants the lock")
            assert change.poll() is None
            assert inventory.read(directory / "lab.json") == made
            holder.kill()
            assert change.wait(30) == 0
    assert commands.set_quality(directory, None, None) == Quality(delay_ms=3)


def open_files(pid: int) -> set[str]:
    found = set()
    for entry in Path(f"/proc/{pid}/fd").glob("*"):
        with suppress(OSError):
            found.add(str(entry.readlink()))
    return found
