"""The HTTP server on the admin socket.

    POST /v1/peers                  enrol: 201 with the agent's configuration (200: was the same)
    GET  /v1/peers                  all peers, one array
    GET  /v1/peers/{name}           one peer with its mappings
    POST /v1/peers/{name}/revoke    shut a peer out; says which servers have applied it
    GET  /v1/status                 the cluster as this server sees it
    GET  /v1/resolve?eid=&instance= the mapping of an EID

Errors are problem+json (``problems``). A body has at most MAX_BODY_BYTES.
"""

import asyncio
import json
import pwd
import socket
import struct
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import islice
from pathlib import Path

from aiohttp import web

from wgmap.errors import ConfigError
from wgmap_cluster.admin import bodies, unix_socket
from wgmap_cluster.admin.problems import problems
from wgmap_cluster.replica.operations import Operations

SHUTDOWN_S = 3.0
KEEPALIVE_S = 15.0  # of a connection without requests
LIST_BATCH = 200  # peers written before other work gets its turn
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


class AdminServer:
    """Serves Operations on a unix socket."""

    def __init__(self, operations: Operations, path: Path) -> None:
        self._operations = operations
        self._path = path
        self._listener: socket.socket | None = None
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen; raises ConfigError where the socket cannot be had."""
        self._listener = unix_socket.listen(self._path)
        runner = web.AppRunner(
            self._app(), access_log=None, shutdown_timeout=SHUTDOWN_S, keepalive_timeout=KEEPALIVE_S
        )
        await runner.setup()
        self._runner = runner
        await web.SockSite(runner, self._listener).start()

    async def stop(self) -> None:
        """Finish what is being answered, for at most SHUTDOWN_S; idempotent."""
        listener, self._listener = self._listener, None
        runner, self._runner = self._runner, None
        if listener is not None:
            unix_socket.remove(self._path)
        if runner is not None:
            await runner.cleanup()

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[problems], client_max_size=bodies.MAX_BODY_BYTES)
        app.add_routes(
            [
                web.post("/v1/peers", self._add_peer),
                web.get("/v1/peers", self._list_peers),
                web.get("/v1/peers/{name}", self._show_peer),
                web.post("/v1/peers/{name}/revoke", self._revoke_peer),
                web.get("/v1/status", self._status),
                web.get("/v1/resolve", self._resolve),
            ]
        )
        return app

    async def _add_peer(self, request: web.Request) -> web.Response:
        enrolment = bodies.parse(await request.read(), bodies.PeerBody).enrolment()
        added = await self._operations.add_peer(enrolment, _operator(request), _wall_time())
        status = HTTPStatus.CREATED if added["changed"] else HTTPStatus.OK
        return web.json_response(added, status=status)

    async def _list_peers(self, request: web.Request) -> web.StreamResponse:
        """Write the array in batches: there may be a hundred thousand, and the log must beat."""
        response = web.StreamResponse()
        response.content_type = "application/json"
        await response.prepare(request)
        await response.write(b"[")
        peers = self._operations.peers()
        comma = ""
        while batch := list(islice(peers, LIST_BATCH)):
            await response.write((comma + ", ".join(map(json.dumps, batch))).encode())
            comma = ", "
            await asyncio.sleep(0)
        await response.write(b"]")
        return response

    async def _show_peer(self, request: web.Request) -> web.Response:
        return web.json_response(self._operations.peer(request.match_info["name"]))

    async def _revoke_peer(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        revoked = await self._operations.revoke_peer(name, _operator(request), _wall_time())
        return web.json_response(revoked)

    async def _status(self, _request: web.Request) -> web.Response:
        return web.json_response(self._operations.status())

    async def _resolve(self, request: web.Request) -> web.Response:
        unknown = set(request.query) - {"eid", "instance"}
        if unknown or "eid" not in request.query:
            raise ConfigError("resolve takes eid and, if not 0, instance")
        eid = bodies.parse_eid(request.query["eid"])
        instance = bodies.parse_instance(request.query.get("instance", "0"))
        return web.json_response(await self._operations.resolve(instance, eid))


def _operator(request: web.Request) -> str:
    """Name who asks, for the audit, from the socket's credentials; "" once it hung up."""
    connection = request.get_extra_info("socket")
    if connection is None:
        return ""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(raw)
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _wall_time() -> str:
    """Return what the audit shows; nothing is decided by it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
