"""Who may ask what over TCP: bearer tokens with roles, and limits for who asks too much."""

import asyncio
from collections.abc import Iterable
from http import HTTPStatus
from weakref import WeakSet

from aiohttp import web
from aiohttp.typedefs import Middleware

from wgmap.clock import now
from wgmap.errors import ConfigError
from wgmap.log import Log
from wgmap_cluster.admin.callers import CALLER
from wgmap_cluster.admin.problems import problem
from wgmap_cluster.admin.routes import Handler, Role, Route
from wgmap_cluster.admin.tokens import Holder, TokenFile
from wgmap_cluster.responder.limits import Limit

REQUESTS = (50.0, 200)  # a second and at once, of each token
FAILURES = (0.5, 10)  # of each source address; after that it is not listened to
_LOG = Log("admin.guard")


class Guard:
    """Lets requests through to their handlers."""

    def __init__(self, tokens: TokenFile, routes: Iterable[Route], public: Iterable[str]) -> None:
        """``public``: paths that everybody may have: the page itself, which holds no secret."""
        self._tokens = tokens
        self._roles = {(route.method, route.path): route.role for route in routes}
        self._public = frozenset(public)
        self._requests = Limit(*REQUESTS)
        self._failures = Limit(*FAILURES)

        self._known: WeakSet[asyncio.BaseTransport] = WeakSet()

    def middleware(self) -> Middleware:
        """Return it as aiohttp wants it."""

        @web.middleware
        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._handle(request, handler)

        return guarded

    def knows(self, transport: asyncio.BaseTransport) -> bool:
        """Tell whether a token that is known came over this connection."""
        return transport in self._known

    async def _handle(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method in ("GET", "HEAD") and request.path in self._public:
            return await handler(request)
        try:
            holder = self._tokens.check(_token(request))
        except ConfigError as error:
            _LOG.error("tokens cannot be read: nobody is let in", reason=error)
            return problem(HTTPStatus.SERVICE_UNAVAILABLE, "tokens cannot be read; see the log")
        if holder is None:
            return self._stranger(request)
        if request.transport is not None:
            self._known.add(request.transport)
        request[CALLER] = f"token {holder.name}"
        if not self._requests.allows(holder.name, now()):
            return _too_many("this token asks too often")
        return self._refused(request, holder) or await handler(request)

    def _stranger(self, request: web.Request) -> web.Response:
        if not self._failures.allows(request.remote or "", now()):
            return _too_many("too many requests without a token that is known")
        answer = problem(HTTPStatus.UNAUTHORIZED, "a bearer token that is known is wanted")
        answer.headers["WWW-Authenticate"] = 'Bearer realm="wgmap"'
        return answer

    def _refused(self, request: web.Request, holder: Holder) -> web.Response | None:
        resource = request.match_info.route.resource
        path = resource.canonical if resource is not None else ""
        wanted = self._roles.get((request.method, path), Role.READ)
        if holder.role >= wanted:
            return None
        _LOG.warning("refused", caller=holder.name, method=request.method, path=path)
        said = f"wants the role {wanted.name.lower()}; {holder.name} has {holder.role.name.lower()}"
        return problem(HTTPStatus.FORBIDDEN, said)


def _token(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _too_many(detail: str) -> web.Response:
    answer = problem(HTTPStatus.TOO_MANY_REQUESTS, detail)
    answer.headers["Retry-After"] = "2"
    return answer
