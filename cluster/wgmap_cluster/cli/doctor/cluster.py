"""The cluster, as the server at the admin socket sees it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from wgmap import __version__
from wgmap.errors import WgmapError
from wgmap_cluster.cli.client import Client
from wgmap_cluster.cli.doctor.finding import Finding, failed, fine, warned

if TYPE_CHECKING:
    from wgmap_cluster.replica.views import StatusView

BEHIND = 10_000  # entries: more than what is under way at any moment


def look(client: Client) -> Iterator[Finding]:
    """Look at all of it."""
    try:
        status: StatusView = client.get("/v1/status")
        version: str = client.get("/v1/openapi.json")["info"]["version"]
    except WgmapError as error:
        advice = "systemctl status wgmap-server; as root; or --socket PATH"
        yield failed("admin socket", str(error), advice)
        return
    yield _version(version)
    yield _quorum(status)
    yield from _servers(status)


def _version(version: str) -> Finding:
    if version != __version__:
        said = f"the server is {version}, this program {__version__}"
        return warned("version", said, "restart the server after an upgrade, one at a time")
    return fine("version", f"the server is {version} as well")


def _quorum(status: "StatusView") -> Finding:
    count = len(status["servers"])
    reached = sum(one["state"] != "unreachable" for one in status["servers"])
    majority = count // 2 + 1
    said = f"{reached} of {count} servers reached, {majority} needed"
    if status["leader"] is None or reached < majority:
        advice = "start the servers that are missing: nothing can be changed, tunnels go on"
        return failed("quorum", said, advice)
    if count > 1 and reached == majority:
        return warned("quorum", said, "the next failure stops all changes: repair what is missing")
    if count < 3:
        return warned("quorum", said, "three servers bear the loss of one")
    return fine("quorum", f"{said}; {status['leader']} leads in term {status['term']}")


def _servers(status: "StatusView") -> Iterator[Finding]:
    newest = max(one["applied"] or 0 for one in status["servers"])
    for one in status["servers"]:
        name = f"server {one['name']}"
        if one["state"] == "unreachable":
            advice = "there: systemctl status wgmap-server, wg show; its mesh port must be open"
            yield failed(name, "not reached", advice)
        elif not one["fresh"]:
            advice = "agents do not trust its answers; its log says when it lost its lease"
            yield warned(name, "answers without authority", advice)
        elif newest - (one["applied"] or 0) > BEHIND:
            yield warned(
                name, f"{newest - (one['applied'] or 0)} entries behind", "look again soon"
            )
        else:
            yield fine(name, f"{one['state']}, reaches {one['reachable_agents']} agents")
