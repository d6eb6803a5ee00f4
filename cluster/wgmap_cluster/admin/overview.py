"""The part of the API that shows the cluster: its state, mappings, records, numbers, networks."""

import ipaddress
from http import HTTPStatus

from aiohttp import web
from pydantic import TypeAdapter

from wgmap.config import NetworkField
from wgmap.errors import ConfigError
from wgmap_cluster.admin import bodies, queries
from wgmap_cluster.admin.callers import operator, wall_time
from wgmap_cluster.admin.queries import AFTER, INSTANCE, LIMIT, MAX_NUMBER, SEARCH
from wgmap_cluster.admin.routes import CHANGES, Query, Role, Route, number
from wgmap_cluster.replica.contacts import MOST as MAX_CONTACTS
from wgmap_cluster.replica.contacts import Wanted
from wgmap_cluster.replica.history import Sample
from wgmap_cluster.replica.operations import Operations
from wgmap_cluster.replica.views import (
    AuditView,
    ContactsView,
    CountersView,
    DigestView,
    InstanceView,
    MappingRowView,
    ResolveView,
    RevocationsView,
    StatusView,
)

MAX_AUDIT = 10_000  # rows in one answer
SINCE = Query("since", "After this number.", number(0, MAX_NUMBER))
EID = Query("eid", "An address or prefix.", TypeAdapter(NetworkField).json_schema(), required=True)
NAMED = {"type": "string", "maxLength": queries.MAX_NAME}
PEER = Query("peer", "Of this peer.", NAMED)
WITH = Query("with", "And of this one: between the two.", NAMED)
CONTACTS = Query("limit", "Pairs at most (100).", number(0, MAX_CONTACTS))
SAMPLE = Query("after", "Only samples behind the one with this number.", number(0, MAX_NUMBER))
AUDITED = Query("limit", "Rows at most (100).", number(0, MAX_AUDIT))


class OverviewRoutes:
    """The handlers."""

    def __init__(self, operations: Operations) -> None:
        """Serve these."""
        self._operations = operations

    def routes(self) -> list[Route]:
        """Return the routes."""
        mapping = "/v1/mappings/{instance}/{address}/{length}"
        instance = "/v1/instances/{instance}"
        missing = (HTTPStatus.NOT_FOUND,)
        return [
            Route("GET", "/v1/status", self.status, Role.READ, StatusView),
            Route(
                *("GET", "/v1/mappings", self.list_mappings, Role.READ, list[MappingRowView]),
                query=(SEARCH, INSTANCE, AFTER, LIMIT),
            ),
            Route("GET", mapping, self.show_mapping, Role.READ, MappingRowView, refusals=missing),
            Route(
                *("GET", "/v1/resolve", self.resolve, Role.READ, ResolveView),
                query=(EID, INSTANCE),
            ),
            Route(
                *("GET", "/v1/audit", self.audit, Role.READ, list[AuditView]),
                query=(SINCE, AUDITED),
            ),
            Route(
                *("GET", "/v1/revocations", self.revocations, Role.READ, RevocationsView),
                query=(SINCE,),
            ),
            Route("GET", "/v1/counters", self.counters, Role.READ, CountersView),
            Route("GET", "/v1/digest", self.digest, Role.READ, DigestView),
            Route(
                *("GET", "/v1/contacts", self.contacts, Role.READ, ContactsView),
                query=(PEER, WITH, CONTACTS),
            ),
            Route("GET", "/v1/history", self.history, Role.READ, list[Sample], query=(SAMPLE,)),
            Route("GET", "/v1/instances", self.instances, Role.READ, list[InstanceView]),
            Route("GET", instance, self.show_instance, Role.READ, InstanceView),
            Route(
                *("PATCH", instance, self.set_instance, Role.ADMIN, InstanceView),
                body=bodies.InstanceBody,
                refusals=(*CHANGES, HTTPStatus.PRECONDITION_FAILED),
                if_match=True,
            ),
        ]

    async def status(self, request: web.Request) -> web.Response:
        """Show the cluster as this server sees it."""
        queries.known(request)
        return web.json_response(self._operations.status())

    async def list_mappings(self, request: web.Request) -> web.Response:
        """List a page of mappings, in the order of their addresses."""
        wanted = queries.wanted(request, queries.mapping_cursor)
        page = await self._operations.browser.mappings(wanted)
        return queries.paged(request, page, lambda view: f"{view['instance']},{view['prefix']}")

    async def show_mapping(self, request: web.Request) -> web.Response:
        """Show one mapping; its version is the ETag."""
        queries.known(request)
        part = request.match_info
        try:
            prefix = ipaddress.ip_network(f"{part['address']}/{part['length']}")
        except ValueError as error:
            raise ConfigError(f"prefix: {error}") from error
        view = self._operations.mapping(bodies.parse_instance(part["instance"]), prefix)
        return web.json_response(view, headers={"ETag": f'"{view["version"]}"'})

    async def resolve(self, request: web.Request) -> web.Response:
        """Show the mapping of an EID, as agents are told."""
        query = queries.known(request, "eid", "instance")
        if "eid" not in query:
            raise ConfigError("resolve takes eid and, if not 0, instance")
        eid = bodies.parse_eid(query["eid"])
        instance = bodies.parse_instance(query.get("instance", "0"))
        return web.json_response(await self._operations.resolve(instance, eid))

    async def audit(self, request: web.Request) -> web.Response:
        """Show what operators did: after a number, or without it the last rows."""
        query = queries.known(request, "since", "limit")
        since = query.get("since")
        after = None if since is None else bodies.parse_number(since, "since", MAX_NUMBER)
        most = bodies.parse_number(query.get("limit", "100"), "limit", MAX_AUDIT)
        return web.json_response(self._operations.audit(after, most))

    async def revocations(self, request: web.Request) -> web.Response:
        """Show what was revoked after a number."""
        since = queries.known(request, "since").get("since", "0")
        count = bodies.parse_number(since, "since", MAX_NUMBER)
        return web.json_response(self._operations.revocations(count))

    async def counters(self, request: web.Request) -> web.Response:
        """Show what this server counted since its processes started."""
        queries.known(request)
        return web.json_response(self._operations.counters())

    async def digest(self, request: web.Request) -> web.Response:
        """Sum this server's whole state up, to compare servers by."""
        queries.known(request)
        return web.json_response(await self._operations.digest())

    async def contacts(self, request: web.Request) -> web.Response:
        """Show who was told of whom: the newest of all, or those of a peer, or of two.

        An agent is told of a peer when it asks for it, and when it is asked for by it: these
        talk, or wanted to. Each server knows whom it told itself within the TTL; those that do
        not answer are named.
        """
        query = queries.known(request, "peer", "with", "limit")
        if "with" in query and "peer" not in query:
            raise ConfigError("with: goes with peer")
        most = bodies.parse_number(query.get("limit", "100"), "limit", MAX_CONTACTS)
        peer, other = (queries.name(query.get(key, ""), key) for key in ("peer", "with"))
        view = await self._operations.contacts.show(Wanted(peer, other, most))
        return web.json_response(view)

    async def history(self, request: web.Request) -> web.Response:
        """Show rates and latencies of this server's last hour, or what came behind a sample."""
        after = queries.known(request, "after").get("after")
        number = None if after is None else bodies.parse_number(after, "after", MAX_NUMBER)
        return web.json_response(self._operations.history.samples(number))

    async def instances(self, request: web.Request) -> web.Response:
        """List the virtual networks."""
        queries.known(request)
        return web.json_response(self._operations.instances())

    async def show_instance(self, request: web.Request) -> web.Response:
        """Show a virtual network; the tag of its values is the ETag."""
        queries.known(request)
        instance = bodies.parse_instance(request.match_info["instance"])
        return _instance(self._operations.instance(instance))

    async def set_instance(self, request: web.Request) -> web.Response:
        """Set an instance's overlay or limit: what is absent stays."""
        queries.known(request)
        instance = bodies.parse_instance(request.match_info["instance"])
        body = bodies.parse(await request.read(), bodies.InstanceBody)
        who = (operator(request), wall_time())
        if_tag = bodies.parse_revision(request.headers.get("If-Match"))
        view = await self._operations.set_instance(
            instance, body.overlay, body.max_mappings, who, if_tag
        )
        return _instance(view)


def _instance(view: InstanceView) -> web.Response:
    return web.json_response(view, headers={"ETag": f'"{view["tag"]}"'})
