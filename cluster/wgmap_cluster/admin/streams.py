"""The parts of the API that are longer than one answer: events, backup and restore.

Events are JSON lines; a blank line is sent when nothing happens for a while, so that a client
that is gone is noticed. A client that does not read is dropped: with the line ``{"event":
"dropped", ...}`` where it can still be told. A restore's body is one line of JSON
(``bodies.RestoreOptions``), then the backup.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from http import HTTPStatus

from aiohttp import web

from wgmap.errors import ConfigError, UnavailableError
from wgmap_cluster.admin import bodies, queries
from wgmap_cluster.admin.callers import operator, wall_time
from wgmap_cluster.admin.routes import BYTES, JSON_LINES, Query, Role, Route, number
from wgmap_cluster.replica.archive import RestoredView
from wgmap_cluster.replica.events import MAX_WAITING, Event, Subscription
from wgmap_cluster.replica.operations import Operations

QUIET_S = 5.0  # then a blank line
WRITE_S = 30.0  # for one piece, to a client that does not read
MAX_LINE = 1 << 20  # of a restore's options
READ_BYTES = 64 * 1024
READ_S = 60.0  # for one piece of a restore's body
FOLLOW = Query("follow", "1: those that come from now on, until you hang up.", number(0, 1))
SEAL_TO = Query("seal_to", "An operator's public key.", {"type": "string", "maxLength": 64})


class Streams:
    """The handlers."""

    def __init__(self, operations: Operations) -> None:
        """Serve these."""
        self._operations = operations

    def routes(self) -> list[Route]:
        """Return the routes."""
        busy = (HTTPStatus.SERVICE_UNAVAILABLE,)
        return [
            Route(
                *("GET", "/v1/events", self.events, Role.READ),
                query=(FOLLOW,),
                media=JSON_LINES,
                refusals=busy,
            ),
            Route(
                *("GET", "/v1/backup", self.backup, Role.ADMIN),
                query=(SEAL_TO,),
                media=BYTES,
                refusals=(HTTPStatus.CONFLICT, *busy),
            ),
            Route(
                *("POST", "/v1/restore", self.restore, Role.ADMIN, RestoredView),
                body=bodies.RestoreOptions,
                body_media=BYTES,
                refusals=(HTTPStatus.CONFLICT, *busy),
            ),
        ]

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Show the last events as JSON lines, or those that come."""
        if queries.known(request, "follow").get("follow", "0") not in ("0", "1"):
            raise ConfigError("follow: 0 or 1")
        events = self._operations.events
        if request.query.get("follow") != "1":
            return await self._recent(request, events.recent())
        with events.subscribe() as subscription:
            response = await _begin(request, JSON_LINES)
            await _follow(response, subscription)
        return response

    async def _recent(self, request: web.Request, events: list[Event]) -> web.StreamResponse:
        response = await _begin(request, JSON_LINES)
        await response.write(_lines(events))
        return response

    async def backup(self, request: web.Request) -> web.StreamResponse:
        """Take a backup; sealed to a key it holds this server's keys."""
        queries.known(request, "seal_to")
        text = request.query.get("seal_to")
        seal_to = None if text is None else bodies.parse_key(text, "seal_to")
        archive = self._operations.archive
        with archive.slot():
            pieces = await archive.backup((operator(request), wall_time()), seal_to)
            response = await _begin(request, "application/octet-stream")
            for piece in pieces:
                if not await _write(response, piece):
                    break  # without its end it is no backup
                await asyncio.sleep(0)
        return response

    async def restore(self, request: web.Request) -> web.Response:
        """Put a backup into an empty cluster: a line of JSON, then the backup."""
        queries.known(request)
        line, rest = await _first_line(request)
        options = bodies.parse(line, bodies.RestoreOptions)
        view = await self._operations.archive.restore(
            bytes.fromhex(options.digest),
            options.revoke,
            _pieces(request, rest),
            (operator(request), wall_time()),
        )
        return web.json_response(view)


async def _begin(request: web.Request, content_type: str) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_type = content_type
    await response.prepare(request)
    return response


async def _write(response: web.StreamResponse, data: bytes) -> bool:
    """Send; False where the client does not read or is gone."""
    try:
        async with asyncio.timeout(WRITE_S):
            await response.write(data)
    except (TimeoutError, ConnectionError):
        response.force_close()
        return False
    return True


async def _follow(response: web.StreamResponse, subscription: Subscription) -> None:
    while (events := await subscription.next(QUIET_S)) is not None:
        if not await _write(response, _lines(events) or b"\n"):
            return
    if subscription.dropped:
        said = {"event": "dropped", "detail": f"more than {MAX_WAITING} events were not read"}
        await _write(response, json.dumps(said).encode() + b"\n")


def _lines(events: list[Event]) -> bytes:
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


async def _first_line(request: web.Request) -> tuple[bytes, bytes]:
    data = b""
    async for piece in _pieces(request, b""):
        data += piece
        line, end, rest = data.partition(b"\n")
        if end:
            return line, rest
        if len(data) > MAX_LINE:
            break
    raise ConfigError("a restore begins with a line of JSON")


async def _pieces(request: web.Request, first: bytes) -> AsyncIterator[bytes]:
    """Yield the body in pieces; raises UnavailableError where it breaks off or stands still."""
    if first:
        yield first
    while True:
        try:
            async with asyncio.timeout(READ_S):
                piece = await request.content.read(READ_BYTES)
        except (TimeoutError, ConnectionError, web.RequestPayloadError) as error:
            raise UnavailableError("the body stopped before its end") from error
        if not piece:
            return
        yield piece
