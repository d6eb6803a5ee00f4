"""Map servers whose processes die, stand still, or lose their machine."""

import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random

from wgmap_chaos.faults import processes
from wgmap_chaos.faults.effect import until_true
from wgmap_chaos.faults.kind import Effect, Kind
from wgmap_chaos.faults.site import SERVER_ROLES, Site, replaced, wireguard_pids

WIREGUARD = "wireguard"


@asynccontextmanager
async def _killed(site: Site, names: Sequence[str]) -> AsyncIterator[Effect]:
    await processes.kill([pid for name in names for pid in site.pids(name)])
    try:
        yield Effect(tuple(names), SERVER_ROLES)
    finally:
        await site.start_servers(names)


@asynccontextmanager
async def kill_one(site: Site, rng: Random) -> AsyncIterator[Effect]:
    """Kill every process of a server that does not lead."""
    leader = await site.leader()
    victim = rng.choice([name for name in site.servers if name != leader])
    async with _killed(site, [victim]) as effect:
        yield effect


@asynccontextmanager
async def kill_leader(site: Site, _rng: Random) -> AsyncIterator[Effect]:
    """Kill every process of the leader."""
    async with _killed(site, [await site.leader()]) as effect:
        yield effect


@asynccontextmanager
async def kill_majority(site: Site, rng: Random) -> AsyncIterator[Effect]:
    """Kill more than half of the servers."""
    victims = rng.sample(site.servers, len(site.servers) // 2 + 1)
    async with _killed(site, victims) as effect:
        yield effect


@asynccontextmanager
async def kill_all(site: Site, _rng: Random) -> AsyncIterator[Effect]:
    """Kill every server at once."""
    async with _killed(site, site.servers) as effect:
        yield effect


@asynccontextmanager
async def _process_killed(site: Site, rng: Random, role: str) -> AsyncIterator[Effect]:
    victim = rng.choice(site.servers)
    pid = site.role_pid(victim, role)
    assert pid is not None, f"{role} runs"
    await processes.kill([pid])
    try:
        yield Effect((victim,), (role,))
    finally:
        await replaced(site, victim, role, pid)


@asynccontextmanager
async def kill_responder(site: Site, rng: Random) -> AsyncIterator[Effect]:
    """Kill a responder alone; its supervisor starts another one."""
    async with _process_killed(site, rng, "responder") as effect:
        yield effect


@asynccontextmanager
async def kill_replica(site: Site, rng: Random) -> AsyncIterator[Effect]:
    """Kill a replica alone; its supervisor starts another one."""
    async with _process_killed(site, rng, "replica") as effect:
        yield effect


@asynccontextmanager
async def _stopped(site: Site, name: str, roles: Sequence[str]) -> AsyncIterator[Effect]:
    pids = site.pids(name, roles)
    await processes.stop(pids)
    try:
        # A supervisor ends a child that does not answer, and starts another one.
        yield Effect((name,), () if "supervisor" in roles else tuple(roles))
    finally:
        await processes.go_on(pids)


@asynccontextmanager
async def stop_one(site: Site, rng: Random) -> AsyncIterator[Effect]:
    """Have all processes of a server stand still."""
    async with _stopped(site, rng.choice(site.servers), SERVER_ROLES) as effect:
        yield effect


@asynccontextmanager
async def stop_leader(site: Site, _rng: Random) -> AsyncIterator[Effect]:
    """Have all processes of the leader stand still."""
    async with _stopped(site, await site.leader(), SERVER_ROLES) as effect:
        yield effect


@asynccontextmanager
async def stop_responder(site: Site, rng: Random) -> AsyncIterator[Effect]:
    """Have a responder stand still."""
    async with _stopped(site, rng.choice(site.servers), ("responder",)) as effect:
        yield effect


@asynccontextmanager
async def stop_replica(site: Site, rng: Random) -> AsyncIterator[Effect]:
    """Have a replica stand still."""
    async with _stopped(site, rng.choice(site.servers), ("replica",)) as effect:
        yield effect


@asynccontextmanager
async def reboot_one(site: Site, rng: Random) -> AsyncIterator[Effect]:
    """Lose a server's machine: processes and interfaces."""
    name = rng.choice(site.servers)
    server = site.server(name)
    interfaces = (server.control_interface, server.mesh_interface)
    await processes.kill([*site.pids(name), *wireguard_pids(interfaces)])
    await site.gone(server.netns, interfaces)
    try:
        yield Effect((name,), (*SERVER_ROLES, WIREGUARD))
    finally:
        await site.start_servers([name])


@asynccontextmanager
async def rolling_restart(site: Site, rng: Random) -> AsyncIterator[Effect]:
    """Ask one server after the other to end, and start it again."""
    order = rng.sample(site.servers, len(site.servers))
    for name in order[:-1]:
        await end(site, name)
        await site.start_servers([name])
    await end(site, order[-1])
    try:
        yield Effect(tuple(order), SERVER_ROLES)
    finally:
        await site.start_servers(order[-1:])


async def end(site: Site, name: str) -> None:
    """Ask a server to end, and see it gone; raises LabError."""
    pid = site.role_pid(name, "supervisor")
    processes.send([pid], signal.SIGTERM)
    await until_true(lambda: not site.pids(name), f"{name} ends when it is asked to")


KINDS = (
    Kind("kill a follower", "servers", kill_one),
    Kind("kill the leader", "servers", kill_leader),
    Kind("kill a majority", "servers", kill_majority),
    Kind("kill all servers", "servers", kill_all),
    Kind("kill a responder", "servers", kill_responder, servers=1),
    Kind("kill a replica", "servers", kill_replica, servers=1),
    Kind("stop a server", "servers", stop_one),
    Kind("stop the leader", "servers", stop_leader),
    Kind("stop a responder", "servers", stop_responder, servers=1),
    Kind("stop a replica", "servers", stop_replica, servers=1),
    Kind("reboot a server", "servers", reboot_one),
    Kind("rolling restart", "servers", rolling_restart),
)
