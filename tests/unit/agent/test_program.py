"""The program: options, exit codes, keys, what people read."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from wgmap.errors import ConfigError, NotFoundError
from wgmap.wg.keys import PublicKey
from wgmap_agent import main as program
from wgmap_agent.runner import keys, present
from wgmap_agent.runner.readiness import Readiness
from wgmap_agent.runner.statussocket import Json, StatusSocket

STATUS: Json = {
    "release": "1.2.3",
    "registered": True,
    "servers": [
        {
            "name": "ms1",
            "control": "fd77::1",
            "rtt_ms": 1.25,
            "last_heard_s": 3.0,
            "preferred": True,
        },
        {
            "name": "ms2",
            "control": "fd77::2",
            "rtt_ms": None,
            "last_heard_s": None,
            "preferred": False,
        },
    ],
    "peers": [
        {
            "key": "KEY",
            "eids": ["10.66.2.1/32", "fd66::2/128"],
            "endpoint": "192.0.2.12:51820",
            "last_handshake_s": 3723.4,
            "rx": 1240,
            "tx": 512,
            "state": "up",
        }
    ],
    "counters": {},
}


async def answer(question: Json) -> Json:
    match question:
        case {"op": "status"}:
            return STATUS
        case {"op": "resolve", "eid": "10.66.2.1"}:
            return {
                "instance": 0,
                "eid": "10.66.2.1/32",
                "found": True,
                "fresh": False,
                "version": 4,
                "ttl_s": 3600,
                "key": "KEY",
                "locators": [{"address": "2001:db8::1", "port": 1, "priority": 1, "weight": 1}],
            }
        case {"op": "resolve"}:
            return {"eid": "10.66.9.9", "found": False, "fresh": True}
        case _:
            raise NotFoundError("no such thing")


@asynccontextmanager
async def agent(path: Path) -> AsyncIterator[None]:
    server = StatusSocket(path, answer)
    await server.start()
    try:
        yield
    finally:
        await server.close()


async def run(*arguments: str) -> int:
    return await asyncio.to_thread(program.main, arguments)


@pytest.mark.parametrize("after", [False, True])
async def test_options_work_before_and_after_the_subcommand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], after: bool
) -> None:
    path = tmp_path / "agent.sock"
    options = ("--socket", str(path), "--json")
    line = ("status", *options) if after else (*options, "status")
    async with agent(path):
        assert await run(*line) == 0
    assert json.loads(capsys.readouterr().out) == STATUS


async def test_status_reads_like_wg_show(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "agent.sock"
    async with agent(path):
        assert await run("--socket", str(path), "status") == 0
    text = capsys.readouterr().out
    assert "peer: KEY\n  endpoint: 192.0.2.12:51820\n" in text
    assert "  allowed ips: 10.66.2.1/32, fd66::2/128\n" in text
    assert "  latest handshake: 1 hour, 2 minutes, 3 seconds ago\n" in text
    assert "  transfer: 1.21 KiB received, 512 B sent\n" in text
    assert "server: ms2\n  control: fd77::2\n  latest answer: never" in text


async def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "agent.sock"
    async with agent(path):
        assert await run("--socket", str(path), "resolve", "10.66.2.1") == 0
        assert await run("--socket", str(path), "resolve", "10.66.9.9") == 1
        assert await run("--socket", str(path), "trace", "10.66.9.9") == 1
    output = capsys.readouterr()
    assert "locator: [2001:db8::1]:1 priority 1" in output.out
    assert "10.66.9.9: no mapping (fresh)" in output.out
    assert output.err == "wgmap-agent: no such thing\n"
    assert await run("--socket", str(path), "status") == 1
    assert "no agent answers" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [(), ("fly",), ("resolve",), ("run",)])
def test_wrong_usage_is_exit_code_2(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        program.main(arguments)
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "down"])
def test_a_wrong_configuration_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert program.main([command, "--config", str(tmp_path / "none.toml")]) == 2
    error = capsys.readouterr().err
    assert error == f"wgmap-agent: {tmp_path}/none.toml: No such file or directory\n"


def test_keygen_makes_keys_once_and_shows_the_public_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "state"
    assert program.main(["keygen", "--dir", str(folder), "--json"]) == 0
    names: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert set(names) == {"control_key", "data_key"}
    assert program.main(["keygen", "--dir", str(folder)]) == 0
    text = "".join(f'{name} = "{key}"\n' for name, key in names.items())
    assert capsys.readouterr().out == text
    for name in (keys.CONTROL_KEY, keys.DATA_KEY):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    control, data = keys.load(folder)
    assert control.public == PublicKey.parse(names["control_key"])
    assert data.public == PublicKey.parse(names["data_key"])


def test_a_control_key_is_never_made_behind_the_operators_back(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="keygen --dir"):
        keys.load(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 seconds"), (1, "1 second"), (86400 * 2 + 61, "2 days, 1 minute, 1 second")],
)
def test_durations_as_wireguard_writes_them(seconds: float, text: str) -> None:
    assert present.duration(seconds) == text


def test_the_service_manager_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        readiness = Readiness()
        readiness.alive()
        assert manager.recv(500) == b"WATCHDOG=1\nEXTEND_TIMEOUT_USEC=30000000"
        readiness.ready("registered")
        assert manager.recv(500) == b"READY=1\nSTATUS=registered"
        readiness.ready("not registered")
        assert manager.recv(500) == b"STATUS=not registered"
        readiness.alive()
        assert manager.recv(500) == b"WATCHDOG=1"
        readiness.stopping()
        assert manager.recv(500) == b"STOPPING=1"
    readiness.alive()  # nobody is there any more
    monkeypatch.delenv("NOTIFY_SOCKET")
    Readiness().ready("nobody asked")
