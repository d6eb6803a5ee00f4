"""The HTTP server on the admin socket.

    POST /v1/peers                  enrol: 201 with the agent's configuration (200: was the same)
    GET  /v1/peers                  all peers, one array
    GET  /v1/peers/{name}           one peer with its mappings
    POST /v1/peers/{name}/revoke    shut a peer out; says which servers have applied it
    POST /v1/peers/import           enrol a batch, all or nothing; errors have a "position"
    PATCH /v1/peers/{name}          change a peer; If-Match: its revision (the ETag of GET)
    GET  /v1/status                 the cluster as this server sees it
    GET  /v1/resolve?eid=&instance= the mapping of an EID
    GET  /v1/audit?since=&limit=    what operators did
    GET  /v1/revocations?since=     what was revoked after that number
    GET  /v1/counters               what this server counted since its processes started
    GET  /v1/instances              the virtual networks
    PATCH /v1/instances/{instance}  set an overlay or a limit
    GET  /v1/events?follow=1        what happens, as JSON lines (``streams``)
    GET  /v1/backup?seal_to=        a backup (``streams``)
    POST /v1/restore                a backup into an empty cluster (``streams``)
    /v1/servers, /v1/leader         who the servers are, and who leads (``servers``)

Errors are problem+json (``problems``). A body has at most MAX_BODY_BYTES.
"""

import asyncio
import json
from http import HTTPStatus
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from wgmap.errors import ConfigError
from wgmap_cluster.admin import bodies, unix_socket
from wgmap_cluster.admin.callers import operator, wall_time
from wgmap_cluster.admin.problems import problems
from wgmap_cluster.admin.servers import ServerRoutes
from wgmap_cluster.admin.streams import Streams
from wgmap_cluster.replica.operations import Operations

if TYPE_CHECKING:
    import socket

SHUTDOWN_S = 3.0
KEEPALIVE_S = 15.0  # of a connection without requests
MAX_NUMBER = (1 << 63) - 1
MAX_AUDIT = 10_000  # rows in one answer
LIST_BATCH = 200  # peers written before other work gets its turn


class AdminServer:
    """Serves Operations on a unix socket."""

    def __init__(self, operations: Operations, path: Path) -> None:
        self._operations = operations
        self._path = path
        self._listener: socket.socket | None = None
        self._runner: web.AppRunner | None = None
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen; raises ConfigError where the socket cannot be had."""
        self._listener = unix_socket.listen(self._path)
        runner = web.AppRunner(
            self._app(), access_log=None, shutdown_timeout=SHUTDOWN_S, keepalive_timeout=KEEPALIVE_S
        )
        await runner.setup()
        self._runner = runner
        await web.SockSite(runner, self._listener).start()
        self._watch = asyncio.create_task(self._operations.events.watch())

    async def stop(self) -> None:
        """Finish what is being answered, for at most SHUTDOWN_S; idempotent."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
        self._operations.events.close()
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
                web.post("/v1/peers/import", self._import_peers),
                web.patch("/v1/peers/{name}", self._set_peer),
                web.get("/v1/status", self._status),
                web.get("/v1/audit", self._audit),
                web.get("/v1/revocations", self._revocations),
                web.get("/v1/counters", self._counters),
                web.get("/v1/instances", self._instances),
                web.patch("/v1/instances/{instance}", self._set_instance),
                *Streams(self._operations).routes(),
                *ServerRoutes(self._operations.servers).routes(),
                web.get("/v1/resolve", self._resolve),
            ]
        )
        return app

    async def _add_peer(self, request: web.Request) -> web.Response:
        enrolment = bodies.parse(await request.read(), bodies.PeerBody).enrolment()
        added = await self._operations.add_peer(enrolment, operator(request), wall_time())
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
        view = self._operations.peer(request.match_info["name"])
        return web.json_response(view, headers={"ETag": f'"{view["revision"]}"'})

    async def _set_peer(self, request: web.Request) -> web.Response:
        revision = bodies.parse_revision(request.headers.get("If-Match"))
        change = bodies.parse(await request.read(), bodies.SetPeerBody).change(revision)
        name = request.match_info["name"]
        view = await self._operations.set_peer(name, change, operator(request), wall_time())
        return web.json_response(view, headers={"ETag": f'"{view["peer"]["revision"]}"'})

    async def _import_peers(self, request: web.Request) -> web.Response:
        body = bodies.parse(await request.read(), bodies.ImportBody)
        enrolments = [peer.enrolment() for peer in body.peers]
        who = (operator(request), wall_time())
        return web.json_response(await self._operations.import_peers(enrolments, *who))

    async def _revoke_peer(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        revoked = await self._operations.revoke_peer(name, operator(request), wall_time())
        return web.json_response(revoked)

    async def _status(self, _request: web.Request) -> web.Response:
        return web.json_response(self._operations.status())

    async def _audit(self, request: web.Request) -> web.Response:
        query = _query(request, "since", "limit")
        since = query.get("since")
        after = None if since is None else bodies.parse_number(since, "since", MAX_NUMBER)
        most = bodies.parse_number(query.get("limit", "100"), "limit", MAX_AUDIT)
        return web.json_response(self._operations.audit(after, most))

    async def _revocations(self, request: web.Request) -> web.Response:
        since = _query(request, "since").get("since", "0")
        number = bodies.parse_number(since, "since", MAX_NUMBER)
        return web.json_response(self._operations.revocations(number))

    async def _counters(self, _request: web.Request) -> web.Response:
        return web.json_response(self._operations.counters())

    async def _instances(self, _request: web.Request) -> web.Response:
        return web.json_response(self._operations.instances())

    async def _set_instance(self, request: web.Request) -> web.Response:
        instance = bodies.parse_instance(request.match_info["instance"])
        body = bodies.parse(await request.read(), bodies.InstanceBody)
        who = (operator(request), wall_time())
        view = await self._operations.set_instance(instance, body.overlay, body.max_mappings, who)
        return web.json_response(view)

    async def _resolve(self, request: web.Request) -> web.Response:
        unknown = set(request.query) - {"eid", "instance"}
        if unknown or "eid" not in request.query:
            raise ConfigError("resolve takes eid and, if not 0, instance")
        eid = bodies.parse_eid(request.query["eid"])
        instance = bodies.parse_instance(request.query.get("instance", "0"))
        return web.json_response(await self._operations.resolve(instance, eid))


def _query(request: web.Request, *known: str) -> dict[str, str]:
    """Return the query; raises ConfigError for what is not known."""
    unknown = sorted(set(request.query) - set(known))
    if unknown:
        raise ConfigError(f"{request.path} does not take {unknown[0]!r}")
    return dict(request.query)
