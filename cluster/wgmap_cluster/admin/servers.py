"""The part of the API that changes who the servers are."""

from aiohttp import web

from wgmap.config import NameField, Section
from wgmap_cluster.admin import bodies, queries
from wgmap_cluster.admin.callers import operator, wall_time
from wgmap_cluster.admin.routes import CHANGES, Role, Route
from wgmap_cluster.config import BootstrapServer
from wgmap_cluster.replica.servers import Servers
from wgmap_cluster.replica.views import LeaderView, ServerSetView


class LeaderBody(Section):
    """``POST /v1/leader``."""

    target: NameField | None = None


class ServerRoutes:
    """The handlers."""

    def __init__(self, servers: Servers) -> None:
        """Serve these."""
        self._servers = servers

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("GET", "/v1/servers", self.list_servers, Role.READ, ServerSetView),
            Route(
                *("POST", "/v1/servers", self.add_server, Role.ADMIN, ServerSetView),
                body=BootstrapServer,
                refusals=CHANGES,
            ),
            Route(
                *("DELETE", "/v1/servers/{name}", self.remove_server, Role.ADMIN, ServerSetView),
                refusals=CHANGES,
            ),
            Route(
                *("POST", "/v1/leader", self.hand_over, Role.ADMIN, LeaderView),
                body=LeaderBody,
                refusals=CHANGES,
            ),
        ]

    async def list_servers(self, request: web.Request) -> web.Response:
        """List the servers: who they are, and who leads."""
        queries.known(request)
        return web.json_response(self._servers.show())

    async def add_server(self, request: web.Request) -> web.Response:
        """Add a server that runs with an empty state; ends when it votes."""
        queries.known(request)
        server = bodies.parse(await request.read(), BootstrapServer)
        view = await self._servers.add(server, operator(request), wall_time())
        return web.json_response(view)

    async def remove_server(self, request: web.Request) -> web.Response:
        """Remove a server, which stops voting."""
        queries.known(request)
        name = request.match_info["name"]
        return web.json_response(await self._servers.remove(name, operator(request), wall_time()))

    async def hand_over(self, request: web.Request) -> web.Response:
        """Have another server lead."""
        queries.known(request)
        body = bodies.parse(await request.read(), LeaderBody)
        return web.json_response(await self._servers.hand_over(body.target))
