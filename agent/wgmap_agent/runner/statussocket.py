"""The local socket that ``wgmap-agent status`` talks to.

A unix stream socket, 0600. A request is one line of JSON (``{"op": "status"}``), the answer is
one line too: ``{"ok": ...}`` or ``{"error": TEXT, "code": EXIT-CODE}``; then it is closed.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

from wgmap import unixsocket
from wgmap.errors import ConfigError, ExitCode, UnavailableError, WgmapError
from wgmap.log import Log

MAX_REQUEST = 4096  # bytes
MAX_ANSWER = 64 << 20
MAX_CLIENTS = 16  # more are closed at once
REQUEST_S = 2.0  # a client that is slower than this is closed
ANSWER_S = 30.0

Json: TypeAlias = dict[str, Any]
Handler: TypeAlias = Callable[[Json], Awaitable[Json]]

log = Log("agent.socket")


class StatusSocket:
    """Serves requests until it is closed; what an answer is, the handler decides."""

    def __init__(self, path: Path, handler: Handler) -> None:
        self._path = path
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen; replaces the file of a dead agent. Raises ConflictError, ConfigError."""
        listener = unixsocket.listen(self._path)
        self._server = await asyncio.start_unix_server(
            self._accept, sock=listener, limit=MAX_REQUEST
        )

    async def close(self) -> None:
        """Stop serving and remove the file."""
        if self._server is None:
            return
        self._server.close()
        for task in tuple(self._clients):
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        self._server = None
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= MAX_CLIENTS:
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None  # asyncio runs this as a task
        self._clients.add(task)
        try:
            await self._serve(reader, writer)
        except (TimeoutError, ConnectionError, ValueError) as error:
            log.debug("client dropped", reason=error)
        finally:
            self._clients.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(REQUEST_S):
            line = await reader.readline()
        answer = await self._answer(line)
        writer.write(json.dumps(answer).encode() + b"\n")
        async with asyncio.timeout(REQUEST_S):
            await writer.drain()

    async def _answer(self, line: bytes) -> Json:
        try:
            return {"ok": await self._handler(_parse(line))}
        except WgmapError as error:
            return {"error": str(error), "code": int(error.exit_code)}


def request(path: Path, question: Json, timeout_s: float = ANSWER_S) -> Json:
    """Ask a running agent; raises UnavailableError, or a WgmapError as the agent said."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(timeout_s)
        try:
            client.connect(str(path))
            client.sendall(json.dumps(question).encode() + b"\n")
            with client.makefile("rb") as file:
                line = file.readline(MAX_ANSWER)
        except OSError as error:
            msg = f"no agent answers at {path}: {error.strerror or error}"
            raise UnavailableError(msg) from error
    return _result(path, line)


def _result(path: Path, line: bytes) -> Json:
    try:
        answer = _parse(line)
    except ConfigError:
        msg = f"the agent at {path} closed the connection without an answer"
        raise UnavailableError(msg) from None
    if "error" in answer:
        failure = WgmapError(str(answer["error"]))
        failure.exit_code = ExitCode(int(answer.get("code", ExitCode.FAILED)))
        raise failure
    result = answer.get("ok")
    return result if isinstance(result, dict) else {}


def _parse(line: bytes) -> Json:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ConfigError("a request is one line with a JSON object")
    return value
