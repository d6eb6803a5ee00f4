"""Errors as application/problem+json (RFC 9457): the one mapping from our errors to HTTP."""

import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from aiohttp import web

from wgmap.errors import ConfigError, ConflictError, NotFoundError, UnavailableError, WgmapError

CONTENT_TYPE = "application/problem+json"
STATUSES: dict[type[WgmapError], HTTPStatus] = {
    ConfigError: HTTPStatus.BAD_REQUEST,
    NotFoundError: HTTPStatus.NOT_FOUND,
    ConflictError: HTTPStatus.CONFLICT,
    UnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def problem(status: int, detail: str) -> web.Response:
    """Make an answer that says what went wrong."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": int(status),
        "detail": detail,
    }
    return web.Response(status=status, text=json.dumps(body), content_type=CONTENT_TYPE)


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn the errors of handlers and of aiohttp itself into problem answers."""
    try:
        return await handler(request)
    except WgmapError as error:
        status = STATUSES.get(type(error), HTTPStatus.INTERNAL_SERVER_ERROR)
        return problem(status, str(error))
    except web.HTTPError as error:
        answer = problem(error.status, f"{request.method} {request.path}: {error.reason}")
        if "Allow" in error.headers:
            answer.headers["Allow"] = error.headers["Allow"]
        return answer
