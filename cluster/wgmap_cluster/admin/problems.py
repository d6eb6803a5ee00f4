"""Errors as application/problem+json (RFC 9457): the one mapping from our errors to HTTP."""

import json
import traceback
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from aiohttp import web

from wgmap.errors import (
    ChangedError,
    ConfigError,
    ConflictError,
    NotFoundError,
    UnavailableError,
    WgmapError,
)
from wgmap.log import Log
from wgmap_cluster.raft.interface import LogError

CONTENT_TYPE = "application/problem+json"
# In this order: a special error before the general one.
STATUSES: dict[type[WgmapError], HTTPStatus] = {
    ConfigError: HTTPStatus.BAD_REQUEST,
    NotFoundError: HTTPStatus.NOT_FOUND,
    ChangedError: HTTPStatus.PRECONDITION_FAILED,
    ConflictError: HTTPStatus.CONFLICT,
    UnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
}
_LOG = Log("admin")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def problem(status: int, detail: str, position: int | None = None) -> web.Response:
    """Make an answer that says what went wrong, and with which item of several."""
    body: dict[str, str | int] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": int(status),
        "detail": detail,
    }
    if position is not None:
        body["position"] = position
    return web.Response(status=status, text=json.dumps(body), content_type=CONTENT_TYPE)


def status_of(error: WgmapError) -> HTTPStatus:
    """Return the HTTP status of an error."""
    found = (status for kind, status in STATUSES.items() if isinstance(error, kind))
    return next(found, HTTPStatus.INTERNAL_SERVER_ERROR)


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn the errors of handlers and of aiohttp itself into problem answers."""
    try:
        return await handler(request)
    except WgmapError as error:
        return problem(status_of(error), str(error), error.position)
    except LogError as error:  # this server ends, and has said so
        detail = (
            f"this server's log stops, and whether the change was made another one tells: {error}"
        )
        return problem(HTTPStatus.SERVICE_UNAVAILABLE, detail)
    except web.HTTPError as error:
        answer = problem(error.status, f"{request.method} {request.path}: {error.reason}")
        if "Allow" in error.headers:
            answer.headers["Allow"] = error.headers["Allow"]
        return answer
    except Exception:  # noqa: BLE001  # the boundary: what it is, is in the log alone
        path = request.match_info.route.resource
        _LOG.error(
            "a request failed", method=request.method, path=path, reason=traceback.format_exc()
        )
        return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "it is in this server's log")
