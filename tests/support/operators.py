"""A founded cluster of three servers behind a real admin socket, of which ms1 is real."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support import fsm
from support.contacts import Responders
from support.memory_log import ClusterLog
from wgmap import __version__
from wgmap_cluster.admin.server import AdminServer
from wgmap_cluster.fsm.commands import Command, encode
from wgmap_cluster.fsm.machine import Machine
from wgmap_cluster.replica.notes import ServerNote
from wgmap_cluster.replica.operations import Operations
from wgmap_cluster.supervisor import keys

STALENESS_S = 0.2
WGMAP = Path(sys.executable).with_name("wgmap")


@dataclass
class Cluster:
    """What a test reaches into."""

    machine: Machine
    log: ClusterLog
    operations: Operations
    socket: Path
    fresh: bool = True
    agents: int | None = 4
    responders: Responders = field(default_factory=Responders)
    answers: bool = True  # a responder is attached, and has everything

    def note(self) -> ServerNote:
        served = self.log.index if self.answers else None
        return ServerNote(
            self.log.index, self.fresh, self.agents, served=served, release=__version__
        )

    async def apply(self, command: Command) -> None:
        await self.log.propose(encode(command))


@dataclass(frozen=True)
class Ended:
    """How a run of the program ended."""

    code: int
    out: str
    err: str


async def until(condition: Callable[[], bool], deadline_s: float = 5.0) -> None:
    """Wait for a condition; TimeoutError after the deadline."""
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0.005)


async def found(socket: Path, servers: int = 3, state_dir: Path | None = None) -> Cluster:
    """Make a cluster whose other servers follow; nothing listens yet."""
    machine = Machine()
    log = ClusterLog(machine)
    cluster: Cluster

    def note() -> ServerNote:
        return cluster.note()

    if state_dir is not None:
        keys.make(state_dir)
    responders = Responders()
    operations = Operations(
        *("ms1", machine, log, note, STALENESS_S, state_dir), responders=responders
    )
    cluster = Cluster(machine, log, operations, socket, responders=responders)
    for number in range(2, servers + 1):
        log.followers.add(f"ms{number}")
    await cluster.apply(fsm.bootstrap(servers))
    return cluster


@asynccontextmanager
async def serving(
    socket: Path, servers: int = 3, state_dir: Path | None = None
) -> AsyncIterator[Cluster]:
    """Serve a cluster's operations on ``socket``."""
    cluster = await found(socket, servers, state_dir)
    server = AdminServer(cluster.operations, socket)
    await server.start()
    try:
        yield cluster
    finally:
        await server.stop()


async def wgmap(cluster: Cluster | None, *arguments: str) -> Ended:
    """Run the program as a process against a cluster's socket."""
    environment = {"WGMAP_SOCKET": str(cluster.socket)} if cluster else {}
    process = await asyncio.create_subprocess_exec(
        WGMAP,
        *arguments,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())
