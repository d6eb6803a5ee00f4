"""The status socket: one line asked, one line answered, nobody can hold it up."""

import asyncio
import socket
from pathlib import Path

import pytest

from wgmap.errors import (
    ConfigError,
    ConflictError,
    ExitCode,
    NotFoundError,
    UnavailableError,
    WgmapError,
)
from wgmap_agent.runner import statussocket
from wgmap_agent.runner.statussocket import Json, StatusSocket, request


async def answer(question: Json) -> Json:
    if question.get("op") != "echo":
        raise NotFoundError("nothing of that name")
    return question


async def ask(path: Path, question: Json) -> Json:
    return await asyncio.to_thread(request, path, question)


async def test_questions_are_answered_and_errors_keep_their_exit_code(tmp_path: Path) -> None:
    path = tmp_path / "run" / "agent.sock"
    server = StatusSocket(path, answer)
    await server.start()
    try:
        assert path.stat().st_mode & 0o777 == 0o600
        assert await ask(path, {"op": "echo", "x": 1}) == {"op": "echo", "x": 1}
        with pytest.raises(WgmapError, match="nothing of that name") as caught:
            await ask(path, {"op": "other"})
        assert caught.value.exit_code is ExitCode.FAILED
    finally:
        await server.close()
    assert not path.exists()
    with pytest.raises(UnavailableError, match="no agent answers"):
        await ask(path, {"op": "echo"})


@pytest.mark.parametrize("line", [b"[]\n", b"{\n", b"\xff\n", b"x" * 9000])
async def test_nonsense_ends_one_client_only(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "agent.sock"
    server = StatusSocket(path, answer)
    await server.start()
    try:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(line)
        said = await asyncio.wait_for(reader.read(), 5)
        assert said == b"" or b"error" in said
        writer.close()
        assert await ask(path, {"op": "echo"}) == {"op": "echo"}
    finally:
        await server.close()


async def test_silent_clients_are_bounded_and_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statussocket, "REQUEST_S", 0.2)
    path = tmp_path / "agent.sock"
    server = StatusSocket(path, answer)
    await server.start()
    try:
        crowd = [await asyncio.open_unix_connection(path) for _ in range(20)]
        ends = await asyncio.wait_for(asyncio.gather(*(r.read() for r, _ in crowd)), 5)
        assert ends == [b""] * 20
        for _, writer in crowd:
            writer.close()
        assert await ask(path, {"op": "echo"}) == {"op": "echo"}
    finally:
        await server.close()


async def test_a_dead_agents_file_is_replaced_a_living_ones_is_not(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    server = StatusSocket(path, answer)
    await server.start()
    try:
        with pytest.raises(ConflictError, match="another"):
            await StatusSocket(path, answer).start()
    finally:
        await server.close()


async def test_a_file_that_is_no_socket_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="not a socket"):
        await StatusSocket(path, answer).start()
    assert path.read_text() == "mine"
