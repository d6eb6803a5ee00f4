"""The part of the API about peers."""

import asyncio
import json
from http import HTTPStatus
from itertools import islice

from aiohttp import web

from wgmap_cluster.admin import bodies, queries
from wgmap_cluster.admin.callers import operator, wall_time
from wgmap_cluster.admin.queries import AFTER, INSTANCE, LIMIT, SEARCH, STATES
from wgmap_cluster.admin.routes import CHANGES, Query, Role, Route
from wgmap_cluster.replica.operations import Operations
from wgmap_cluster.replica.views import (
    AddedView,
    ImportedView,
    PeerDetailView,
    PeerView,
    RevokedView,
    SetView,
)

LIST_BATCH = 200  # peers written before other work gets its turn
STATE = Query("state", "Only these.", {"type": "string", "enum": list(STATES)})


class PeerRoutes:
    """The handlers."""

    def __init__(self, operations: Operations) -> None:
        """Serve these."""
        self._operations = operations

    def routes(self) -> list[Route]:
        """Return the routes."""
        one = "/v1/peers/{name}"
        missing = (HTTPStatus.NOT_FOUND,)
        return [
            Route(
                *("GET", "/v1/peers", self.list_peers, Role.READ, list[PeerView]),
                query=(SEARCH, STATE, INSTANCE, AFTER, LIMIT),
            ),
            Route(
                *("POST", "/v1/peers", self.add_peer, Role.OPERATE, AddedView, bodies.PeerBody),
                successes=(HTTPStatus.CREATED, HTTPStatus.OK),
                refusals=CHANGES,
            ),
            Route(
                *("POST", "/v1/imports", self.import_peers, Role.OPERATE, ImportedView),
                body=bodies.ImportBody,
                refusals=CHANGES,
            ),
            Route("GET", one, self.show_peer, Role.READ, PeerDetailView, refusals=missing),
            Route(
                *("PATCH", one, self.set_peer, Role.OPERATE, SetView, bodies.SetPeerBody),
                refusals=(*CHANGES, HTTPStatus.PRECONDITION_FAILED),
                if_match=True,
            ),
            Route(
                *("POST", f"{one}/revoke", self.revoke_peer, Role.OPERATE, RevokedView),
                refusals=(*CHANGES, HTTPStatus.PRECONDITION_FAILED),
                if_match=True,
            ),
        ]

    async def list_peers(self, request: web.Request) -> web.StreamResponse:
        """List peers in the order of their names: all of them, or with any parameter a page."""
        if not request.query:
            return await self._all(request)
        wanted = queries.wanted(request, str, "state")
        page = await self._operations.browser.peers(wanted)
        return queries.paged(request, page, lambda view: view["name"])

    async def _all(self, request: web.Request) -> web.StreamResponse:
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

    async def add_peer(self, request: web.Request) -> web.Response:
        """Enrol a peer: 201 with its agent's configuration, 200 where it was so before."""
        enrolment = bodies.parse(await request.read(), bodies.PeerBody).enrolment()
        added = await self._operations.add_peer(enrolment, operator(request), wall_time())
        status = HTTPStatus.CREATED if added["changed"] else HTTPStatus.OK
        return web.json_response(added, status=status)

    async def import_peers(self, request: web.Request) -> web.Response:
        """Enrol a batch, all or nothing; a problem has the position of who is at fault."""
        body = bodies.parse(await request.read(), bodies.ImportBody)
        enrolments = [peer.enrolment() for peer in body.peers]
        who = (operator(request), wall_time())
        return web.json_response(await self._operations.import_peers(enrolments, *who))

    async def show_peer(self, request: web.Request) -> web.Response:
        """Show a peer with its mappings; its revision is the ETag."""
        queries.known(request)
        view = self._operations.peer(request.match_info["name"])
        return web.json_response(view, headers={"ETag": f'"{view["revision"]}"'})

    async def set_peer(self, request: web.Request) -> web.Response:
        """Change a peer: what is absent stays."""
        queries.known(request)
        revision = bodies.parse_revision(request.headers.get("If-Match"))
        change = bodies.parse(await request.read(), bodies.SetPeerBody).change(revision)
        name = request.match_info["name"]
        view = await self._operations.set_peer(name, change, operator(request), wall_time())
        return web.json_response(view, headers={"ETag": f'"{view["peer"]["revision"]}"'})

    async def revoke_peer(self, request: web.Request) -> web.Response:
        """Shut a peer out, for good; says which servers answer by it already."""
        queries.known(request)
        name = request.match_info["name"]
        revision = bodies.parse_revision(request.headers.get("If-Match"))
        who = (operator(request), wall_time())
        revoked = await self._operations.revoke_peer(name, *who, revision)
        return web.json_response(revoked)
