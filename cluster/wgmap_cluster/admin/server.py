"""The HTTP server of the admin API: a unix socket, and where an operator opens it TLS over TCP.

What it serves stands in the tables of ``peers``, ``overview``, ``servers`` and ``streams``; its
description is at ``/v1/openapi.json``. Errors are problem+json (``problems``).
"""

import asyncio
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from wgmap import accepting
from wgmap.addresses import Endpoint
from wgmap.errors import ConfigError
from wgmap.log import Log
from wgmap_cluster.admin import bodies, openapi, page, queries, unix_socket
from wgmap_cluster.admin.connections import Connections
from wgmap_cluster.admin.guard import Guard
from wgmap_cluster.admin.overview import OverviewRoutes
from wgmap_cluster.admin.peers import PeerRoutes
from wgmap_cluster.admin.problems import problems
from wgmap_cluster.admin.routes import Role, Route
from wgmap_cluster.admin.servers import ServerRoutes
from wgmap_cluster.admin.streams import Streams
from wgmap_cluster.admin.tokens import TokenFile
from wgmap_cluster.config import AdminSection
from wgmap_cluster.replica.operations import Operations

if TYPE_CHECKING:
    import socket

SHUTDOWN_S = 3.0
KEEPALIVE_S = 15.0  # of a connection without requests
HANDSHAKE_S = 5.0
_LOG = Log("admin")


class AdminServer:
    """Serves Operations."""

    def __init__(self, operations: Operations, path: Path, tcp: AdminSection | None = None) -> None:
        """Listen on the unix socket ``path``, and where ``tcp`` says so."""
        self._operations = operations
        self._path = path
        self._tcp = tcp
        self._listener: socket.socket | None = None
        self._runners: list[web.AppRunner] = []
        self._open: list[asyncio.Server] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Listen; raises ConfigError where a listener cannot be had."""
        try:
            self._listener = unix_socket.listen(self._path)
            runner = await self._run(make_app(self.routes()))
            site = web.SockSite(runner, self._listener, backlog=accepting.TURN)
            await site.start()
            accepting.ready([self._listener], unix_socket.BACKLOG)
            if self._tcp is not None and self._tcp.listen is not None:
                await self._open_tcp(self._tcp, self._tcp.listen)
        except BaseException:
            await self.stop()
            raise
        jobs = (self._operations.events.watch(), self._operations.history.run())
        self._tasks = [asyncio.create_task(job) for job in jobs]

    async def stop(self) -> None:
        """Finish what is being answered, for at most SHUTDOWN_S; idempotent."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        self._operations.events.close()
        listener, self._listener = self._listener, None
        runners, self._runners = self._runners, []
        if listener is not None:
            unix_socket.remove(self._path)
        while self._open:
            self._open.pop().close()
        await asyncio.gather(*(runner.cleanup() for runner in runners))
        if listener is not None:
            listener.close()

    def routes(self) -> list[Route]:
        """Return the table of all routes."""
        return [
            *PeerRoutes(self._operations).routes(),
            *OverviewRoutes(self._operations).routes(),
            *ServerRoutes(self._operations.servers).routes(),
            *Streams(self._operations).routes(),
            Route("GET", "/v1/openapi.json", self.openapi, Role.READ, dict[str, object]),
        ]

    async def openapi(self, request: web.Request) -> web.Response:
        """Show the description of this API."""
        queries.known(request)
        return web.json_response(openapi.describe(self.routes()))

    async def _open_tcp(self, section: AdminSection, listen: Endpoint) -> None:
        assert section.tokens is not None, "the section was checked"
        context = _tls(section)
        routes = self.routes()
        guard = Guard(TokenFile(section.tokens), routes, page.PATHS)
        connections = Connections(guard.knows)
        runner = await self._run(make_app(routes, guard))
        assert runner.server is not None, "it is set up"
        server = runner.server
        loop = asyncio.get_running_loop()
        try:
            listening = await loop.create_server(
                connections.limited(server),
                *(str(listen.address), listen.port),
                ssl=context,
                ssl_handshake_timeout=HANDSHAKE_S,
                reuse_address=True,
                backlog=accepting.TURN,
            )
        except OSError as error:
            raise ConfigError(f"admin.listen {listen}: {error.strerror or error}") from error
        accepting.ready(listening.sockets)
        self._open.append(listening)
        _LOG.info("admin API over TLS", listen=listen)

    async def _run(self, app: web.Application) -> web.AppRunner:
        runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=SHUTDOWN_S, keepalive_timeout=KEEPALIVE_S
        )
        await runner.setup()
        self._runners.append(runner)
        return runner


def make_app(routes: Iterable[Route], guard: Guard | None = None) -> web.Application:
    """Make the application of one listener; over TCP there is a guard."""
    middlewares = [problems] if guard is None else [problems, guard.middleware()]
    app = web.Application(middlewares=middlewares, client_max_size=bodies.MAX_BODY_BYTES)
    app.add_routes([route.to_aiohttp() for route in routes])
    app.add_routes(page.routes())
    app.on_response_prepare.append(_harden)
    return app


async def _harden(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "wgmap"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers.setdefault("Cache-Control", "no-store")


def _tls(section: AdminSection) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    assert section.certificate is not None, "the section was checked"
    try:
        context.load_cert_chain(section.certificate, section.key)
    except (OSError, ssl.SSLError) as error:
        msg = f"admin.certificate and admin.key: {error.strerror or error}"
        raise ConfigError(msg) from error
    return context
