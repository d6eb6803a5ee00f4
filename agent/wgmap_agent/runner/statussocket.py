"""The local socket that ``wgmap-agent status`` talks to.

A unix stream socket, 0600. A request is one line of JSON (``{"op": "status"}``), the answer is
one line too: ``{"ok": ...}`` or ``{"error": TEXT, "code": EXIT-CODE}``; then it is closed.
"""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

from wgmap import unixsocket
from wgmap.errors import ConfigError, ExitCode, UnavailableError, WgmapError
from wgmap.log import Log
from wgmap.streams import StreamServer

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
        self._server = StreamServer(self._serve, MAX_CLIENTS, MAX_REQUEST, log)

    async def start(self) -> None:
        """Listen; replaces the file of a dead agent. Raises ConflictError, ConfigError."""
        await self._server.start(unixsocket.listen(self._path))

    async def close(self) -> None:
        """Stop serving and remove the file."""
        if not self._server.is_open:
            return
        await self._server.close()
        self._path.unlink(missing_ok=True)

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
