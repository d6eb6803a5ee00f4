"""What operators see, as the JSON objects of the admin API: unknown values are null."""

import base64
import ipaddress
from collections.abc import Iterable

from typing_extensions import TypedDict

from wgmap.addresses import prefix_from_bytes
from wgmap.lisp.messages import AuthAlgorithm
from wgmap_cluster.fsm.rows import (
    AuditRow,
    LocatorRow,
    MappingRow,
    PeerRow,
    RegistrationRow,
    RevocationRow,
)

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


class MappingRowView(MappingView):
    """A mapping in ``wgmap mapping list``: whose it is, and in which instance."""

    instance: int
    peer: str


class PeerDetailView(PeerView):
    """A peer in ``wgmap peer show``; its secret is not shown."""

    endpoint_allow: list[str]
    lisp_auth: str | None
    limit: int  # most prefixes and mappings
    revision: int  # rises with every change by an operator
    revocation: int | None  # number of its revocation
    mappings: list[MappingView]


class SetView(TypedDict):
    """The answer to ``wgmap peer set``."""

    peer: PeerDetailView
    changed: bool  # false: it was so before


class ImportedView(TypedDict):
    """The answer to one batch of ``wgmap peer import``."""

    enrolled: int
    unchanged: int


class AuditView(TypedDict):
    """A row of ``wgmap audit``."""

    number: int
    time: str  # wall clock of the server that was asked
    clock_s: float  # replicated clock
    server: str
    operator: str
    action: str
    subject: str
    detail: str


class RevocationView(TypedDict):
    """A numbered revocation: what agents must drop."""

    number: int
    peer: str
    instance: int
    prefixes: list[str]
    key: str | None  # its last data public key


class RevocationsView(TypedDict):
    """What was revoked since a number; ``last`` is the newest one."""

    last: int
    more: bool  # ask again from the last number that is here
    revocations: list[RevocationView]


class CountersView(TypedDict):
    """What a server counted, by name; each responder for itself."""

    replica: dict[str, int]
    log: dict[str, int]
    responders: list[dict[str, int]]


def no_counters() -> CountersView:
    """Return what one says who counts nothing."""
    return {"replica": {}, "log": {}, "responders": []}


class InstanceView(TypedDict):
    """A virtual network in ``wgmap instance list``."""

    instance: int
    overlay: list[str]
    own_overlay: bool  # false: the cluster's
    peers: int
    mappings: int
    max_mappings: int
    tag: int  # of its values: other values have another one


class AddedView(TypedDict):
    """The answer to ``wgmap peer add``."""

    peer: PeerView
    config: str
    changed: bool  # false: it was enrolled in the same way before


class RevokedView(TypedDict):
    """The answer to ``wgmap peer revoke``: which servers have applied it, and serve by it."""

    name: str
    took_s: float  # until all had confirmed, or the wait was over
    confirmed: list[str]
    unconfirmed: list[str]


class ServerView(TypedDict):
    """A server in ``wgmap status``; the values of an unreachable one are null."""

    name: str
    state: str  # leader | follower | candidate | unreachable
    applied: int | None
    fresh: bool | None
    reachable_agents: int | None
    release: str | None  # which one it runs


class MemberView(TypedDict):
    """A server in ``wgmap server list``; what the table does not have is null."""

    name: str
    leader: bool
    member: bool  # whether it votes
    connected: bool  # to the server that was asked
    endpoint: str | None
    mesh_address: str | None
    control_address: str | None
    mesh_key: str | None
    control_key: str | None


class ServerSetView(TypedDict):
    """``wgmap server list``, ``add`` and ``remove``."""

    leader: str | None
    servers: list[MemberView]


class LeaderView(TypedDict):
    """``wgmap server transfer-leader``."""

    leader: str
    before: str | None


class StatusView(TypedDict):
    """``wgmap status``."""

    leader: str | None
    term: int
    cluster_id: str | None
    servers: list[ServerView]
    peers: int
    revoked: int
    revocation: int  # number of the last one; 0: none yet
    mappings: int
    restoring: bool  # a backup is being restored: nobody can register


class ToldView(TypedDict):
    """That a server told an agent of a peer."""

    server: str
    ago_s: float
    state: str  # heard | waiting (for its acknowledgement) | unheard (it never came)


class ContactView(TypedDict):
    """That an agent was told of a peer: it asked for it, or is to expect it."""

    agent: str
    subject: str
    told: list[ToldView]  # the newest first


class ContactsView(TypedDict):
    """Who was told of whom, the newest first: what ``wgmap trace --from`` and the map show."""

    servers: list[str]  # that answered
    silent: list[str]  # that did not: what they alone told is missing here
    contacts: list[ContactView]


class DigestView(TypedDict):
    """The whole replicated state in one number; two servers are compared at one index."""

    applied: int
    digest: str  # hexadecimal


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


def audit_view(number: int, row: AuditRow) -> AuditView:
    """Show what an operator did."""
    return {
        "number": number,
        "time": row.wall,
        "clock_s": round(row.clock, 3),
        "server": row.server,
        "operator": row.operator,
        "action": row.action,
        "subject": row.subject,
        "detail": row.detail,
    }


def revocation_view(number: int, row: RevocationRow) -> RevocationView:
    """Show a revocation."""
    return {
        "number": number,
        "peer": row.peer,
        "instance": row.instance,
        "prefixes": prefix_texts(row.prefixes),
        "key": key_text(row.key),
    }


def lisp_auth_name(row: PeerRow) -> str | None:
    """Return how a plain LISP client authenticates, as operators write it."""
    return _LISP_AUTH_NAMES.get(row.lisp_auth) if row.lisp_key else None


def locator_views(locators: Iterable[LocatorRow]) -> list[LocatorView]:
    """Show endpoints in the order of their peer."""
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


def mapping_row_view(key: tuple[int, bytes], row: MappingRow) -> MappingRowView:
    """Show a mapping with whose it is."""
    return {"instance": key[0], "peer": row.peer, **mapping_view(key[1], row)}
