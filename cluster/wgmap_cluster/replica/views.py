"""What operators see, as the JSON objects of the admin API: unknown values are null."""

import base64
import ipaddress
from collections.abc import Iterable
from typing import TypedDict

from wgmap.addresses import prefix_from_bytes
from wgmap.lisp.messages import AuthAlgorithm
from wgmap_cluster.fsm.rows import LocatorRow, MappingRow, PeerRow, RegistrationRow

LISP_AUTH = {"sha256": AuthAlgorithm.HMAC_SHA256_128, "sha1": AuthAlgorithm.HMAC_SHA1}
_LISP_AUTH_NAMES = {int(algorithm): name for name, algorithm in LISP_AUTH.items()}


class PeerView(TypedDict):
    """A peer in ``wgmap peer list``."""

    name: str
    instance: int
    control_key: str | None  # null: a plain LISP client
    control_address: str
    prefixes: list[str]
    registered: bool
    last_seen_s: float | None  # by the replicated clock; null: never
    revoked: bool


class LocatorView(TypedDict):
    """An endpoint of a mapping."""

    address: str
    port: int
    priority: int
    weight: int


class MappingView(TypedDict):
    """A mapping of a peer."""

    prefix: str
    key: str | None
    version: int
    ttl_s: int
    locators: list[LocatorView]


class PeerDetailView(PeerView):
    """A peer in ``wgmap peer show``; its secret is not shown."""

    endpoint_allow: list[str]
    lisp_auth: str | None
    mappings: list[MappingView]


class AddedView(TypedDict):
    """The answer to ``wgmap peer add``."""

    peer: PeerView
    config: str
    changed: bool  # false: it was enrolled in the same way before


class RevokedView(TypedDict):
    """The answer to ``wgmap peer revoke``: which servers have applied it."""

    name: str
    confirmed: list[str]
    unconfirmed: list[str]


class ServerView(TypedDict):
    """A server in ``wgmap status``; the values of an unreachable one are null."""

    name: str
    state: str  # leader | follower | candidate | unreachable
    applied: int | None
    fresh: bool | None
    reachable_agents: int | None


class StatusView(TypedDict):
    """``wgmap status``."""

    leader: str | None
    term: int
    cluster_id: str | None
    servers: list[ServerView]
    peers: int
    mappings: int


class ResolveView(TypedDict):
    """``wgmap resolve``; ``prefix`` and ``peer`` are the mapping's, for people."""

    instance: int
    eid: str
    found: bool
    fresh: bool
    version: int | None
    ttl_s: int | None
    key: str | None
    locators: list[LocatorView]
    prefix: str | None
    peer: str | None


def key_text(key: bytes) -> str | None:
    """Write a public key as WireGuard does; None where there is none."""
    return base64.b64encode(key).decode() if key else None


def prefix_texts(prefixes: Iterable[bytes]) -> list[str]:
    """Write prefixes."""
    return [str(prefix_from_bytes(prefix)) for prefix in prefixes]


def peer_view(
    name: str, row: PeerRow, registration: RegistrationRow | None, clock: float
) -> PeerView:
    """Show a peer; ``clock`` is the replicated clock's present value."""
    registered = registration is not None and registration.ttl_min > 0 and not row.revoked
    seen = None if registration is None else round(max(0.0, clock - registration.seen), 3)
    return {
        "name": name,
        "instance": row.instance,
        "control_key": key_text(row.control_key),
        "control_address": str(ipaddress.ip_address(row.control_address)),
        "prefixes": prefix_texts(row.prefixes),
        "registered": registered,
        "last_seen_s": seen,
        "revoked": row.revoked,
    }


def lisp_auth_name(row: PeerRow) -> str | None:
    """Return how a plain LISP client authenticates, as operators write it."""
    return _LISP_AUTH_NAMES.get(row.lisp_auth) if row.lisp_key else None


def locator_views(locators: Iterable[LocatorRow]) -> list[LocatorView]:
    """Show endpoints, best first."""
    return [
        {
            "address": str(ipaddress.ip_address(locator.address)),
            "port": locator.port,
            "priority": locator.priority,
            "weight": locator.weight,
        }
        for locator in locators
    ]


def mapping_view(prefix: bytes, row: MappingRow) -> MappingView:
    """Show a mapping."""
    return {
        "prefix": str(prefix_from_bytes(prefix)),
        "key": key_text(row.key),
        "version": row.version,
        "ttl_s": 60 * row.ttl_min,
        "locators": locator_views(row.locators),
    }
