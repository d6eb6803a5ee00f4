"""``wgmap server``: who the servers are, and who leads."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from wgmap.errors import WgmapError
from wgmap_cluster.cli.client import Client
from wgmap_cluster.cli.commands import Report
from wgmap_cluster.cli.texts import table

if TYPE_CHECKING:
    from wgmap_cluster.replica.views import LeaderView, ServerSetView

ADD_TIMEOUT_S = 150.0  # a new server gets the whole log first
LOOK_S = 1.0  # for a look at how far it is


def show(client: Client, _options: argparse.Namespace) -> Report:
    """List the servers."""
    view: ServerSetView = client.get("/v1/servers")
    return Report(view, _text(view))


def add(client: Client, options: argparse.Namespace) -> Report:
    """Add a server that runs with an empty state."""
    body = {
        "name": options.name,
        "mesh_key": str(options.mesh_key),
        "control_key": str(options.control_key),
        "endpoint": options.endpoint,
        "mesh_address": options.mesh_address,
        "control_address": options.control_address,
    }
    client.progress.watch(lambda: joining(client.path, options.name))
    view: ServerSetView = client.post("/v1/servers", body, timeout_s=ADD_TIMEOUT_S)
    return Report(view, _text(view))


def remove(client: Client, options: argparse.Namespace) -> Report:
    """Remove a server."""
    client.progress.say(f"waiting until {options.name} does not vote any more")
    view: ServerSetView = client.delete(f"/v1/servers/{quote(options.name, safe='')}")
    return Report(view, _text(view))


def transfer_leader(client: Client, options: argparse.Namespace) -> Report:
    """Have another server lead."""
    client.progress.say(f"waiting for {options.name or 'another server'} to lead")
    view: LeaderView = client.post("/v1/leader", {"target": options.name})
    return Report(view, f"{view['leader']} leads")


def joining(path: Path, name: str) -> str:
    """Say how far a server is that is being added; asked beside the request that adds it."""
    try:
        view: ServerSetView = Client(path).get("/v1/servers", timeout_s=LOOK_S)
    except WgmapError:
        return f"waiting for {name}"
    one = next((one for one in view["servers"] if one["name"] == name), None)
    if one is None or not one["connected"]:
        return f"waiting for {name}: no connection with it yet"
    return f"waiting for {name}: it gets the log" if not one["member"] else f"{name} votes"


def _text(view: "ServerSetView") -> str:
    head = ("server", "leads", "votes", "connected", "endpoint", "mesh", "control")
    return table(
        head,
        (
            (
                *(one["name"], one["leader"], one["member"], one["connected"]),
                *(one["endpoint"], one["mesh_address"], one["control_address"]),
            )
            for one in view["servers"]
        ),
    )
