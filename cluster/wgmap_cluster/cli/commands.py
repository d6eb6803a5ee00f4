"""What each command asks, prints and ends with."""

import argparse
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from urllib.parse import quote, urlencode

from wgmap.errors import ExitCode
from wgmap_cluster.cli import texts
from wgmap_cluster.cli.client import REVOKE_TIMEOUT_S, Client

if TYPE_CHECKING:
    from wgmap_cluster.replica.views import (
        AddedView,
        AuditView,
        InstanceView,
        PeerDetailView,
        PeerView,
        ResolveView,
        RevokedView,
        SetView,
        StatusView,
    )

# The fields of ``resolve --json`` that operators' programs rely on.
RESOLVE_FIELDS = (
    *("instance", "eid", "found", "fresh", "version", "ttl_s", "key"),
    "locators",
)


class Report(NamedTuple):
    """What a command has to say: to programs, to people, and as exit code."""

    value: object
    text: str
    exit_code: ExitCode = ExitCode.OK
    warning: str = ""
    silent: bool = False  # it has said everything already


Command: TypeAlias = Callable[[Client, argparse.Namespace], Report]


def peer_add(client: Client, options: argparse.Namespace) -> Report:
    """Enrol a peer."""
    body = {
        "name": options.name,
        "prefixes": [str(prefix) for prefix in options.prefix],
        "control_key": _text(options.control_key),
        "control_address": _text(options.control_address),
        "endpoint_allow": [str(prefix) for prefix in options.endpoint_allow],
        "instance": options.instance,
        "lisp_key": options.lisp_key,
        "lisp_auth": options.lisp_auth,
        "limit": options.limit or 0,
    }
    added: AddedView = client.post("/v1/peers", body)
    return Report({**added["peer"], "config": added["config"]}, added["config"].rstrip("\n"))


def peer_set(client: Client, options: argparse.Namespace) -> Report:
    """Change a peer."""
    body = {
        "name": options.name_new,
        "prefixes": _texts(options.prefix),
        "endpoint_allow": [] if options.no_endpoint_allow else _texts(options.endpoint_allow),
        "control_key": _text(options.control_key),
        "lisp_key": options.lisp_key,
        "lisp_auth": options.lisp_auth,
        "limit": options.limit,
    }
    given = {name: value for name, value in body.items() if value is not None}
    path = f"/v1/peers/{quote(options.name, safe='')}"
    view: SetView = client.patch(path, given, options.if_revision)
    return Report({**view["peer"], "changed": view["changed"]}, texts.peer(view["peer"]))


def instance_list(client: Client, _options: argparse.Namespace) -> Report:
    """List the instances."""
    views: list[InstanceView] = client.get("/v1/instances")
    return Report(views, texts.instances(views))


def instance_set(client: Client, options: argparse.Namespace) -> Report:
    """Set an instance's overlay or limit."""
    overlay = [] if options.no_overlay else _texts(options.overlay)
    body = {"overlay": overlay, "max_mappings": options.max_mappings}
    given = {name: value for name, value in body.items() if value is not None}
    view: InstanceView = client.patch(f"/v1/instances/{options.instance}", given, options.if_tag)
    return Report(view, texts.instances([view]))


def audit(client: Client, options: argparse.Namespace) -> Report:
    """Show what operators did."""
    query = {"limit": options.limit}
    if options.since is not None:
        query["since"] = options.since
    views: list[AuditView] = client.get(f"/v1/audit?{urlencode(query)}")
    return Report(views, texts.audit(views))


def peer_list(client: Client, _options: argparse.Namespace) -> Report:
    """List all peers."""
    peers: list[PeerView] = client.get("/v1/peers")
    return Report(peers, texts.peers(peers))


def peer_show(client: Client, options: argparse.Namespace) -> Report:
    """Show one peer."""
    peer: PeerDetailView = client.get(f"/v1/peers/{quote(options.name, safe='')}")
    return Report(peer, texts.peer(peer))


def peer_revoke(client: Client, options: argparse.Namespace) -> Report:
    """Revoke a peer; UNCONFIRMED where a server has not applied it in time."""
    path = f"/v1/peers/{quote(options.name, safe='')}/revoke"
    client.progress.say(f"waiting until every server answers without {options.name}")
    revoked: RevokedView = client.post(
        path, timeout_s=REVOKE_TIMEOUT_S, revision=options.if_revision
    )
    took = f"after {revoked['took_s']:.2f} s"
    confirmed = ", ".join(revoked["confirmed"]) or "none"
    text = f"{revoked['name']} is revoked; confirmed {took} by: {confirmed}"
    if not revoked["unconfirmed"]:
        return Report(revoked, text)
    missing = f"not yet confirmed by: {', '.join(revoked['unconfirmed'])}"
    return Report(revoked, text, ExitCode.UNCONFIRMED, missing)


def status(client: Client, _options: argparse.Namespace) -> Report:
    """Show the cluster."""
    view: StatusView = client.get("/v1/status")
    return Report(view, texts.status(view))


def resolve(client: Client, options: argparse.Namespace) -> Report:
    """Show the mapping of an EID; FAILED where there is none."""
    query = urlencode({"eid": options.eid, "instance": options.instance})
    view: ResolveView = client.get(f"/v1/resolve?{query}")
    value = {name: view[name] for name in RESOLVE_FIELDS}  # type: ignore[literal-required]
    warning = "" if view["fresh"] else "no quorum confirms this: it may be out of date"
    if view["found"]:
        return Report(value, texts.mapping(view), warning=warning)
    missing = f"no mapping for {view['eid']} in instance {view['instance']}"
    return Report(value, missing, ExitCode.FAILED, warning)


def _texts(values: Iterable[object] | None) -> list[str] | None:
    return None if values is None else [str(value) for value in values]


def _text(value: object) -> str | None:
    return None if value is None else str(value)
