"""Children that hang, and a configuration that is taken over by a running server."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.netns import alive
from support.supervised import ROLES, Server, wait_for
from wgmap.errors import ConfigError, WgmapError
from wgmap_cluster.main import main
from wgmap_cluster.supervisor import life
from wgmap_cluster.supervisor.children import Child
from wgmap_cluster.supervisor.life import Patience
from wgmap_cluster.supervisor.reload import reload

TESTS = str(Path(__file__).parents[2])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.close()


@pytest.mark.parametrize("beats_s", ["0", "1.5"])
async def test_a_child_that_hangs_is_killed_and_started_again(
    beats_s: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", TESTS)
    pids: list[int | None] = []
    again = asyncio.Event()
    child = Child("it", "support.silent_child", lambda: (beats_s,), patience=Patience(3.0, 2.0))

    def started() -> None:
        pids.append(child.pid)
        if len(pids) == 2:
            again.set()

    keeping = asyncio.create_task(child.keep(started))
    try:
        async with asyncio.timeout(30):
            await again.wait()
    finally:
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
        child.kill()
    assert pids[0] != pids[1]
    assert pids[0] is not None
    assert not alive(pids[0])


def test_a_time_in_which_nobody_looked_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine was suspended for an hour, and the child's next sign of life is on its way."""
    at = 1000.0
    monkeypatch.setattr(life, "now", lambda: at)
    listener = life.Listener(Patience(start_s=120.0, silent_s=30.0))
    try:
        os.write(listener.write_fd, b"+")
        assert not listener.is_silent()
        at += 3600.0
        assert not listener.is_silent(), "it could not say anything"
        for _ in range(29):
            at += 1.0
            assert not listener.is_silent()
        at += 2.0
        assert listener.is_silent(), "but now it could"
    finally:
        listener.close()


async def test_a_child_that_lives_is_left_alone(server: Server) -> None:
    """The real responder beats: a patience that is shorter than its life kills it not."""
    server.ready()
    responder = Path(f"/proc/{server.pids()['responder']}")
    environment = (responder / "environ").read_bytes().split(b"\0")
    [number] = [one.split(b"=")[1] for one in environment if one.startswith(b"WGMAP_LIFE_FD=")]
    written = responder / "fdinfo" / number.decode()
    assert written.exists()
    reads = _writes(responder)
    await asyncio.to_thread(wait_for, lambda: _writes(responder) > reads + 1, "signs of life")


def _writes(process: Path) -> int:
    lines = (process / "io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("syscw"))


def test_a_reload_restarts_the_children_and_answers_meanwhile(server: Server) -> None:
    server.ready()
    before = server.pids()
    server.config.write_text(
        server.config.read_text().replace("[server]", "[server]\nstaleness_s = 2.0")
    )
    assert main(["reload", "--config", str(server.config)]) == 0
    after = server.pids()
    assert after["supervisor"] == before["supervisor"]
    assert all(after[role] != before[role] for role in ROLES if role != "supervisor")
    assert server.answers()


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("[server]", "[server]\nwrong = 1", "server.wrong"),
        ("unprotected = true", 'interface = "wgm-x"\nunprotected = true', "control: changed"),
    ],
)
def test_a_reload_of_what_cannot_be_taken_over_changes_nothing(
    server: Server, old: str, new: str, what: str
) -> None:
    server.ready()
    before = server.pids()
    server.config.write_text(server.config.read_text().replace(old, new))
    with pytest.raises(ConfigError, match=what):
        reload(server.config)
    assert server.pids() == before
    assert server.answers()


def test_a_signal_with_a_broken_file_changes_nothing(server: Server) -> None:
    server.ready()
    before = server.pids()
    server.config.write_text("no TOML")
    os.kill(before["supervisor"], signal.SIGHUP)
    wait_for(lambda: "not reloaded" in server.output(), "the refusal")
    assert server.pids() == before


def test_a_reload_without_a_server_says_so(server: Server) -> None:
    server.ready()
    server.process.send_signal(signal.SIGTERM)
    server.wait()
    with pytest.raises(WgmapError, match="no server runs"):
        reload(server.config)
