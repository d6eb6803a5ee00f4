"""``wgmap page``: a way for a browser on this host to the admin socket.

It listens on 127.0.0.1 alone, and lets in whoever has the address that it prints: that holds a
token which is good once, and is changed for a cookie. Requests that another site's page sends are
refused by their Host and Origin.
"""

import argparse
import asyncio
import contextlib
import secrets
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

import aiohttp
from aiohttp import web

from wgmap.errors import ConfigError
from wgmap_cluster.cli.client import Client
from wgmap_cluster.cli.commands import Report

HOST = "127.0.0.1"
COOKIE = "wgmap-page"
ONCE = "once"
PIECE = 64 * 1024
PASSED_ON = ("Content-Type", "If-Match", "If-None-Match")
PASSED_BACK = (
    *("Content-Type", "ETag", "Link", "Total-Count", "Content-Security-Policy"),
    *("Cache-Control", "Referrer-Policy", "X-Content-Type-Options", "Allow", "Retry-After"),
)


def page(client: Client, options: argparse.Namespace) -> Report:
    """Serve until interrupted."""
    client.get("/v1/status")  # a socket that nobody answers at is told before a browser opens
    client.progress.over()
    proxy = Proxy(client.path, read_only=options.read_only)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(proxy, options.port))
    return Report(None, "", silent=True)


class Proxy:
    """Passes requests of one browser on to the admin socket."""

    def __init__(self, path: Path, *, read_only: bool) -> None:
        """``path``: the admin socket."""
        self.once: str | None = secrets.token_urlsafe(32)
        self._cookie = secrets.token_urlsafe(32)
        self._path = path
        self._methods = ("GET",) if read_only else ("GET", "POST", "PATCH", "DELETE")
        self._hosts: frozenset[str] = frozenset()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Let in, refuse, or pass on."""
        if request.headers.get("Host") not in self._hosts or not self._is_own(request):
            return web.Response(status=403, text="not this page's own request\n")
        if ONCE in request.query:
            return self._let_in(request.query[ONCE])
        if not secrets.compare_digest(
            request.cookies.get(COOKIE, "").encode(), self._cookie.encode()
        ):
            return web.Response(status=401, text="open the address that wgmap page printed\n")
        if request.method not in self._methods:
            return web.Response(status=403, text="this page may only look (--read-only)\n")
        return await self._pass_on(request)

    def listens_at(self, port: int) -> str:
        """Note the port; returns the address to open."""
        self._hosts = frozenset((f"{HOST}:{port}", f"localhost:{port}"))
        return f"http://{HOST}:{port}/?{ONCE}={self.once}"

    def _is_own(self, request: web.Request) -> bool:
        origin = request.headers.get("Origin")
        return origin is None or origin.removeprefix("http://") in self._hosts

    def _let_in(self, token: str) -> web.Response:
        once, self.once = self.once, None  # whoever comes second, guesses or not, comes too late
        if once is None or not secrets.compare_digest(token.encode(), once.encode()):
            return web.Response(status=401, text="this address was good once: run it again\n")
        answer = web.Response(status=303, headers={"Location": "/"})
        answer.set_cookie(COOKIE, self._cookie, httponly=True, samesite="Strict")
        return answer

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        headers = _some(request.headers.items(), PASSED_ON)
        body = await request.read() if request.method != "GET" else None
        timeout = aiohttp.ClientTimeout(total=None)
        connector = aiohttp.UnixConnector(str(self._path))
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.request(
                    request.method,
                    f"http://localhost{request.raw_path}",
                    headers=headers,
                    data=body,
                    allow_redirects=False,
                ) as answer,
            ):
                back = _some(answer.headers.items(), PASSED_BACK)
                response = web.StreamResponse(status=answer.status, headers=back)
                await response.prepare(request)
                async for piece in answer.content.iter_any():
                    await response.write(piece)
                return response
        except aiohttp.ClientConnectionError:
            return web.Response(status=503, text="the server does not answer\n")


def _some(headers: Iterable[tuple[str, str]], names: tuple[str, ...]) -> dict[str, str]:
    wanted = {name.lower() for name in names}
    return {name: value for name, value in headers if name.lower() in wanted}


async def _serve(proxy: Proxy, port: int) -> None:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", proxy.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, HOST, port)
    try:
        await site.start()
    except OSError as error:
        raise ConfigError(f"{HOST}:{port}: {error.strerror or error}") from error
    try:
        address = proxy.listens_at(runner.addresses[0][1])
        sys.stdout.write(f"open this in a browser on this host (good once):\n{address}\n")
        sys.stdout.flush()
        ended = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        await ended.wait()
    finally:
        await runner.cleanup()
