"""Parameters of a query, checked before anything else sees them, and answers in pages."""

import ipaddress
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import urlencode

from aiohttp import web

from wgmap.addresses import prefix_to_bytes
from wgmap.errors import ConfigError
from wgmap_cluster.admin import bodies
from wgmap_cluster.admin.routes import Query, number
from wgmap_cluster.replica.browsing import Page, Wanted, mapping_order

MAX_NUMBER = (1 << 63) - 1
MAX_PAGE = 1000
PAGE = 100
MAX_SEARCH = 100
MAX_AFTER = 200
MAX_NAME = 63  # characters of a peer's name
STATES = ("registered", "enrolled", "revoked")
INSTANCE = Query("instance", "Of this virtual network.", number(0, bodies.MAX_INSTANCE))
SEARCH = Query(
    "search",
    "A part of a name, an address or prefix, or a key.",
    {"type": "string", "maxLength": MAX_SEARCH},
)
LIMIT = Query("limit", f"Rows at most ({PAGE}).", number(1, MAX_PAGE))
AFTER = Query(
    "after", "The last row of the page before.", {"type": "string", "maxLength": MAX_AFTER}
)
TOTAL = "Total-Count"
T = TypeVar("T")


def known(request: web.Request, *names: str) -> dict[str, str]:
    """Return the query; raises ConfigError for what is not known, or comes twice."""
    for name in request.query:
        if name not in names:
            raise ConfigError(f"{request.path} does not take {name!r}")
        if len(request.query.getall(name)) > 1:
            raise ConfigError(f"{name}: more than once")
    return dict(request.query)


def wanted(request: web.Request, cursor: Callable[[str], Any], *extra: str) -> Wanted:
    """Read which page is wanted; raises ConfigError."""
    query = known(request, "search", "instance", "after", "limit", *extra)
    limit = bodies.parse_number(query.get("limit", str(PAGE)), "limit", MAX_PAGE)
    if not limit:
        raise ConfigError("limit: at least 1")
    search = query.get("search", "")
    if len(search) > MAX_SEARCH:
        raise ConfigError(f"search: longer than {MAX_SEARCH} characters")
    state = query.get("state")
    if state not in (None, *STATES):
        raise ConfigError(f"state: one of {', '.join(STATES)}")
    instance, after = query.get("instance"), query.get("after")
    if after is not None and len(after) > MAX_AFTER:
        raise ConfigError(f"after: longer than {MAX_AFTER} characters")
    return Wanted(
        search,
        None if instance is None else bodies.parse_instance(instance),
        state,
        None if after is None else cursor(after),
        limit,
    )


def name(text: str, what: str) -> str:
    """Read the name of a peer that is there, or may be; raises ConfigError."""
    if len(text) > MAX_NAME:
        raise ConfigError(f"{what}: longer than {MAX_NAME} characters")
    return text


def mapping_cursor(text: str) -> Any:
    """Read ``INSTANCE,PREFIX``; raises ConfigError."""
    instance, _, prefix = text.partition(",")
    try:
        key = prefix_to_bytes(ipaddress.ip_network(prefix))
    except ValueError as error:
        raise ConfigError(f"after: {error}") from error
    return mapping_order((bodies.parse_instance(instance), key))


def paged(request: web.Request, page: Page[T], cursor: Callable[[T], str]) -> web.Response:
    """Answer with a page: an array, how many there are, and a link to the next (RFC 8288)."""
    headers = {TOTAL: str(page.total)}
    if page.more:
        query = urlencode({**request.query, "after": cursor(page.rows[-1])})
        headers["Link"] = f'<{request.path}?{query}>; rel="next"'
    return web.json_response(page.rows, headers=headers, status=HTTPStatus.OK)
