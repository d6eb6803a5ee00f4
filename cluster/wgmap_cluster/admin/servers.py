"""The part of the API that changes who the servers are.

GET    /v1/servers          who they are, and who leads
POST   /v1/servers          add one: the fields of a [[bootstrap.server]]
DELETE /v1/servers/{name}   remove one
POST   /v1/leader           {"target": NAME or null}: have another one lead
"""

from aiohttp import web

from wgmap.config import NameField, Section
from wgmap_cluster.admin import bodies
from wgmap_cluster.admin.callers import operator, wall_time
from wgmap_cluster.config import BootstrapServer
from wgmap_cluster.replica.servers import Servers


class LeaderBody(Section):
    """``POST /v1/leader``."""

    target: NameField | None = None


class ServerRoutes:
    """The handlers."""

    def __init__(self, servers: Servers) -> None:
        """Serve these."""
        self._servers = servers

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get("/v1/servers", self._list),
            web.post("/v1/servers", self._add),
            web.delete("/v1/servers/{name}", self._remove),
            web.post("/v1/leader", self._hand_over),
        ]

    async def _list(self, _request: web.Request) -> web.Response:
        return web.json_response(self._servers.show())

    async def _add(self, request: web.Request) -> web.Response:
        server = bodies.parse(await request.read(), BootstrapServer)
        view = await self._servers.add(server, operator(request), wall_time())
        return web.json_response(view)

    async def _remove(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        return web.json_response(await self._servers.remove(name, operator(request), wall_time()))

    async def _hand_over(self, request: web.Request) -> web.Response:
        body = bodies.parse(await request.read(), LeaderBody)
        return web.json_response(await self._servers.hand_over(body.target))
