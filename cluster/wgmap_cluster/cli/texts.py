"""Values as people read them: sentences, tables, "-" for what is not known."""

import ipaddress
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from wgmap.addresses import Endpoint
from wgmap.terminal import bad, bold, doubtful, good, key, pad, width
from wgmap_cluster.replica.views import (
    AuditView,
    InstanceView,
    LocatorView,
    MappingRowView,
    MappingView,
    PeerDetailView,
    PeerView,
    ResolveView,
    StatusView,
)

if TYPE_CHECKING:
    from wgmap_cluster.replica.events import Event

GAP = "  "


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write columns as wide as their widest cell, under a head in capitals."""
    heads = [bold(name.upper()) for name in head]
    cells = [heads, *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
    lines = (GAP.join(map(pad, row, widths)).rstrip() for row in cells)
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def duration(seconds: float | None) -> str | None:
    """Write seconds in the unit that suits them."""
    if seconds is None:
        return None
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def peers(views: Iterable[PeerView]) -> str:
    """Write the table of peers."""
    head = ("name", "instance", "control address", "state", "seen", "prefixes")
    rows = (
        (
            view["name"],
            view["instance"],
            view["control_address"],
            _coloured_state(view),
            duration(view["last_seen_s"]),
            " ".join(view["prefixes"]),
        )
        for view in views
    )
    return table(head, rows)


def _peer_state(view: PeerView) -> str:
    if view["revoked"]:
        return "revoked"
    return "registered" if view["registered"] else "enrolled"


def _coloured_state(view: PeerView) -> str:
    state = _peer_state(view)
    return {"registered": good, "revoked": bad}.get(state, doubtful)(state)


def peer(view: PeerDetailView) -> str:
    """Write all that is known of one peer."""
    facts = (
        ("name", view["name"]),
        ("state", _coloured_state(view)),
        ("last seen", duration(view["last_seen_s"])),
        ("instance", view["instance"]),
        ("control key", key(view["control_key"])),
        ("control address", view["control_address"]),
        ("prefixes", " ".join(view["prefixes"])),
        ("endpoints allowed", " ".join(view["endpoint_allow"]) or None),
        ("LISP authentication", view["lisp_auth"]),
        ("limit", view["limit"]),
        ("revision", view["revision"]),
        ("revocation", view["revocation"]),
    )
    lines = _facts(facts)
    if view["mappings"]:
        lines += "\n\n" + _mappings(view["mappings"])
    return lines


def _facts(facts: Iterable[tuple[str, object]]) -> str:
    pairs = [(bold(f"{name}:"), _cell(value)) for name, value in facts]
    columns = max(width(name) for name, _ in pairs)
    return "\n".join(f"{pad(name, columns)}{GAP}{value}" for name, value in pairs)


def _mappings(views: Iterable[MappingView]) -> str:
    head = ("mapping", "version", "ttl", "endpoints")
    rows = (
        (view["prefix"], view["version"], duration(view["ttl_s"]), _endpoints(view["locators"]))
        for view in views
    )
    return table(head, rows)


def _endpoints(locators: Iterable[LocatorView]) -> str:
    return " ".join(map(endpoint, locators))


def endpoint(locator: LocatorView) -> str:
    """Write address and port as WireGuard does."""
    return str(Endpoint(ipaddress.ip_address(locator["address"]), locator["port"]))


def status(view: StatusView) -> str:
    """Write the cluster in a sentence, in facts, and as a table of its servers."""
    facts: tuple[tuple[str, object], ...] = (
        ("cluster", view["cluster_id"]),
        ("leader", view["leader"]),
        ("term", view["term"]),
        ("peers", view["peers"]),
        ("revoked", f"{view['revoked']} (last number {view['revocation']})"),
        ("mappings", view["mappings"]),
    )
    if view["restoring"]:
        facts = (*facts, ("restoring", "a backup; nobody can register until it is in"))
    servers = view["servers"]
    newest = max((one["applied"] for one in servers if one["applied"] is not None), default=0)
    head = ("server", "state", "applied", "behind", "fresh", "reachable agents", "release")
    rows = (
        (
            server["name"],
            _server_state(server["state"]),
            server["applied"],
            None if server["applied"] is None else newest - server["applied"],
            _fresh(fresh=server["fresh"]),
            server["reachable_agents"],
            server["release"],
        )
        for server in servers
    )
    return "\n\n".join((health(view), _facts(facts), table(head, rows)))


def health(view: StatusView) -> str:
    """Say in a sentence how the cluster is."""
    servers = view["servers"]
    fresh = sum(server["fresh"] is True for server in servers)
    lost = [server["name"] for server in servers if server["state"] == "unreachable"]
    if view["leader"] is None:
        return bad("NO LEADER: nothing can be registered, enrolled or revoked")
    if lost:
        left = (len(servers) - 1) // 2 - len(lost)
        more = f"{left} more may fail" if left > 0 else "no other may fail"
        return doubtful(f"degraded: {', '.join(lost)} not reached; {more}")
    if fresh < len(servers):
        return doubtful(f"degraded: {fresh} of {len(servers)} servers answer with authority")
    if view["restoring"]:
        return doubtful("a backup is being restored")
    count = f"all {len(servers)} servers answer" if len(servers) > 1 else "the server answers"
    return good(f"well: {count} with authority")


def _server_state(state: str) -> str:
    return {"leader": bold, "unreachable": bad, "candidate": doubtful}.get(state, str)(state)


def _fresh(*, fresh: bool | None) -> str | None:
    return None if fresh is None else good("yes") if fresh else bad("no")


def mapping_rows(views: Iterable[MappingRowView]) -> str:
    """Write the table of mappings with whose they are."""
    head = ("instance", "mapping", "peer", "version", "ttl", "endpoints")
    rows = (
        (
            *(view["instance"], view["prefix"], view["peer"], view["version"]),
            *(duration(view["ttl_s"]), _endpoints(view["locators"])),
        )
        for view in views
    )
    return table(head, rows)


def mapping_row(view: MappingRowView) -> str:
    """Write all of one mapping."""
    facts = (
        ("mapping", view["prefix"]),
        ("instance", view["instance"]),
        ("peer", view["peer"]),
        ("key", key(view["key"])),
        ("version", view["version"]),
        ("TTL", duration(view["ttl_s"])),
    )
    return _facts(facts) + "\n\n" + _locators(view["locators"])


def _locators(locators: Iterable[LocatorView]) -> str:
    head = ("endpoint", "priority", "weight")
    rows = ((endpoint(one), one["priority"], one["weight"]) for one in locators)
    return table(head, rows)


def instances(views: Iterable[InstanceView]) -> str:
    """Write the table of instances."""
    head = ("instance", "peers", "mappings", "most mappings", "overlay")
    rows = (
        (
            view["instance"],
            view["peers"],
            view["mappings"],
            view["max_mappings"],
            " ".join(view["overlay"]) + ("" if view["own_overlay"] else " (the cluster's)"),
        )
        for view in views
    )
    return table(head, rows)


def audit(views: Iterable[AuditView]) -> str:
    """Write the audit trail."""
    head = ("number", "time", "server", "operator", "action", "subject", "detail")
    rows = (
        (
            *(view["number"], view["time"], view["server"], view["operator"]),
            *(view["action"], view["subject"], view["detail"]),
        )
        for view in views
    )
    return table(head, rows)


def event(view: "Event") -> str:
    """Write one event as a line."""
    said = " ".join(filter(None, (view.get("subject"), view.get("detail"))))
    return f"{view.get('time', '-')}{GAP}{view['event']:12}{GAP}{said}"


def mapping(view: ResolveView) -> str:
    """Write what an EID resolves to."""
    facts = (
        ("EID", view["eid"]),
        ("mapping", view["prefix"]),
        ("peer", view["peer"]),
        ("key", key(view["key"])),
        ("version", view["version"]),
        ("TTL", duration(view["ttl_s"])),
        ("fresh", view["fresh"]),
    )
    return _facts(facts) + "\n\n" + _locators(view["locators"])
