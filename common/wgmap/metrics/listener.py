"""The HTTP listener of a daemon for Prometheus and for probes, on a unix socket or an address.

GET /metrics        the page
GET /health/live    200: the process' event loop turns
GET /health/ready   200: it does its work at this moment; 503: it does not, and says why
"""

import asyncio
import json
import socket
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from prometheus_client.core import Metric

from wgmap import unixsocket
from wgmap.config import Listen
from wgmap.errors import ConfigError
from wgmap.log import Log
from wgmap.metrics.families import render
from wgmap.streams import StreamServer

MAX_HEAD = 8192  # bytes of a request
MAX_CLIENTS = 8  # more are closed at once
REQUEST_S = 5.0  # a client that is slower than this is closed
SOCKET_MODE = 0o660
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PLAIN = "text/plain; charset=utf-8"
NOT_FOUND = b"see /metrics, /health/live, /health/ready\n"

log = Log("metrics")


class Health(NamedTuple):
    """How a daemon is: what was looked at, and whether it is as it should be."""

    checks: Mapping[str, bool]

    @property
    def well(self) -> bool:
        """Whether all of it is."""
        return all(self.checks.values())


class MetricsServer:
    """Serves metrics and health until it is closed."""

    def __init__(
        self, listen: Listen, page: Callable[[], Iterable[Metric]], ready: Callable[[], Health]
    ) -> None:
        """``page``, ``ready``: called for each request."""
        self._listen = listen
        self._page = page
        self._ready = ready
        self._server = StreamServer(self._serve, MAX_CLIENTS, MAX_HEAD, log)

    async def start(self) -> None:
        """Listen; raises ConfigError, ConflictError."""
        await self._server.start(_open(self._listen))
        log.info("metrics", listen=self._listen)

    async def stop(self) -> None:
        """Stop serving; a unix socket's file goes as well."""
        if not self._server.is_open:
            return
        await self._server.close()
        if isinstance(self._listen, Path):
            self._listen.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(REQUEST_S):
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(self._answer(head))
            await writer.drain()

    def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if method != b"GET":
            return _response("405 Method Not Allowed", b"only GET\n", PLAIN)
        match path:
            case b"/metrics":
                return _response("200 OK", render(self._page()), CONTENT_TYPE)
            case b"/health/live":
                return _health(Health({"event_loop": True}))
            case b"/health/ready":
                return _health(self._ready())
            case _:
                return _response("404 Not Found", NOT_FOUND, PLAIN)


def _health(health: Health) -> bytes:
    status = "200 OK" if health.well else "503 Service Unavailable"
    body = json.dumps({"status": "ok" if health.well else "failing", "checks": dict(health.checks)})
    return _response(status, body.encode() + b"\n", "application/json")


def _response(status: str, body: bytes, content_type: str) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def _open(listen: Listen) -> socket.socket:
    if isinstance(listen, Path):
        return unixsocket.listen(listen, SOCKET_MODE)
    family = socket.AF_INET if listen.address.version == 4 else socket.AF_INET6
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(listen.address), listen.port))
    except OSError as error:
        listener.close()
        msg = f"metrics at {listen}: {error.strerror}"
        raise ConfigError(msg) from error
    return listener
