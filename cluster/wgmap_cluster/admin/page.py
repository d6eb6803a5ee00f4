"""The page: files of this package, served as they are. They hold no secret."""

from pathlib import Path

from aiohttp import web

FOLDER = Path(__file__).parent / "static"
KINDS = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
FILES = {f"/{path.name}": path for path in sorted(FOLDER.glob("*")) if path.suffix in KINDS}
PATHS = frozenset({"/", *FILES})
# Nothing from outside, no inline script or style, in nobody's frame.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def routes() -> list[web.RouteDef]:
    """Return the routes of the page."""
    return [web.get(path, show) for path in sorted(PATHS)]


async def show(request: web.Request) -> web.Response:
    """Send a file; browsers ask each time whether it is still the same."""
    path = FILES["/index.html" if request.path == "/" else request.path]
    return web.Response(
        body=path.read_bytes(),
        content_type=KINDS[path.suffix],
        charset="utf-8",
        headers={
            "Content-Security-Policy": POLICY,
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",
        },
    )
