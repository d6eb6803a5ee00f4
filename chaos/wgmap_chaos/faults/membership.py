"""A server that is lost for good, and another one that takes its place."""

import asyncio
import json
import shutil
import tomllib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from random import Random

from wgmap.errors import UnavailableError, WgmapError
from wgmap_chaos.faults import processes
from wgmap_chaos.faults.effect import until
from wgmap_chaos.faults.kind import Effect, Kind
from wgmap_chaos.faults.servers import WIREGUARD
from wgmap_chaos.faults.site import SERVER_ROLES, Site, wireguard_pids
from wgmap_chaos.lab import daemons, shell, toml, topology
from wgmap_chaos.lab.inventory import ServerEntry
from wgmap_cluster.cli.client import Client
from wgmap_cluster.cli.servers import ADD_TIMEOUT_S


@asynccontextmanager
async def replace_server(site: Site, rng: Random) -> AsyncIterator[Effect]:
    """Remove a server, throw its machine away, and add one with the same name and new keys."""
    name = rng.choice(site.servers)
    server = site.server(name)
    await _asked(site, name, lambda client: client.delete(f"/v1/servers/{name}"), "removed")
    interfaces = (server.control_interface, server.mesh_interface)
    await processes.kill([*site.pids(name), *wireguard_pids(interfaces)])
    await site.gone(server.netns, interfaces)
    site.replaced.append(name)
    try:
        yield Effect((name,), (*SERVER_ROLES, WIREGUARD))
    finally:
        keys = await asyncio.to_thread(_wipe, server)
        daemons.start(topology.paths(site.directory), name, server.netns, "wgmap-server")
        await until(lambda: _answers(site, name), f"the new {name} answers")
        body = _body(server, keys)
        await _asked(
            site, name, lambda client: client.post("/v1/servers", body, ADD_TIMEOUT_S), "added"
        )
        await site.start_servers([name])  # it runs: this waits until it knows a leader
        site.servers_changed()


async def _asked(site: Site, name: str, work: Callable[[Client], object], what: str) -> None:
    """Ask the other servers in turns until one has done it; raises LabError."""
    others = [site.server(other) for other in site.servers if other != name]

    async def done() -> bool:
        for other in others:
            try:
                await asyncio.to_thread(work, Client(other.admin_socket))
            except UnavailableError:
                continue
            except WgmapError:
                return False
            return True
        return False

    await until(done, f"{name} is {what}", 180.0)


def _wipe(server: ServerEntry) -> dict[str, str]:
    """Give a server an empty disk and new keys; return these."""
    shutil.rmtree(server.state_dir)
    server.state_dir.mkdir(mode=0o700)
    argv = [shell.program("wgmap-server"), "keygen", "--dir", str(server.state_dir), "--json"]
    keys: dict[str, str] = json.loads(shell.run(argv))
    document = tomllib.loads(server.config.read_text())
    for each in document["bootstrap"]["server"]:
        if each["name"] == server.name:
            each.update(keys)
    server.config.write_text(toml.dumps(document))
    return keys


async def _answers(site: Site, name: str) -> bool:
    return await site.status(name) is not None


def _body(server: ServerEntry, keys: Mapping[str, str]) -> dict[str, str]:
    return {
        "name": server.name,
        "mesh_key": keys["mesh_key"],
        "control_key": keys["control_key"],
        "endpoint": str(server.underlay),
        "mesh_address": str(server.mesh),
        "control_address": str(server.control),
    }


KINDS = (Kind("replace a server", "servers", replace_server),)
