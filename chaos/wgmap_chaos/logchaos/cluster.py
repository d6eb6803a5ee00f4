"""The server processes: started, asked, killed, stopped."""

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from wgmap import clock
from wgmap_chaos.faults import processes
from wgmap_chaos.lab import shell
from wgmap_chaos.lab.errors import LabError
from wgmap_chaos.logchaos.network import Network
from wgmap_chaos.logchaos.server import LINE_LIMIT
from wgmap_cluster.config import RAFT_PORT

READY_S = 60.0
POLL_S = 0.05


class GoneError(Exception):
    """The server does not run, or did not answer."""


class ServerProcess:
    """One server; ``number`` counts from 1."""

    def __init__(self, number: int, argv: list[str], log: Path) -> None:
        """Only remember; see ``start``."""
        self.number, self.name = number, f"ms{number}"
        self._argv, self._log = argv, log
        self._process: asyncio.subprocess.Process | None = None
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reading: asyncio.Task[None] | None = None
        self._last_id = 0

    @property
    def pid(self) -> int | None:
        """The process id, None while it does not run."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Start the process, which must not run."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=LINE_LIMIT,
            )
        self._reading = asyncio.create_task(self._read(self._process))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None, "it has a pipe"
        while line := await process.stdout.readline():
            reply = json.loads(line)
            future = self._waiting.pop(reply["id"], None)
            if future is not None and not future.done():
                future.set_result(reply)
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(GoneError(self.name))

    async def call(self, op: str, timeout_s: float = 2.5, **fields: int) -> dict[str, Any]:
        """Ask; raises GoneError when it does not answer, whatever the reason."""
        if self.pid is None or self._process is None or self._process.stdin is None:
            raise GoneError(self.name)
        self._last_id += 1
        number = self._last_id
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        line = json.dumps({"id": number, "op": op, **fields}) + "\n"
        self._process.stdin.write(line.encode())
        try:
            return await asyncio.wait_for(future, timeout_s)
        except TimeoutError as error:
            raise GoneError(self.name) from error
        finally:
            self._waiting.pop(number, None)

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        processes.send([self.pid], number)

    async def kill(self) -> None:
        """Kill it with SIGKILL and wait for its end."""
        self.send(signal.SIGKILL)
        if self._process is not None and self._reading is not None:
            await self._process.wait()
            await self._reading

    def require_healthy(self) -> None:
        """See to it that it did not end by itself; raises LabError with what it said."""
        code = None if self._process is None else self._process.returncode
        if code not in (None, -signal.SIGKILL):
            raise LabError(f"{self.name} ended with {code}\n{shell.tail(self._log)}")


class Cluster:
    """All servers of a run."""

    def __init__(self, servers: tuple[ServerProcess, ...], network: Network) -> None:
        """See ``cluster``."""
        self.servers, self.network = servers, network

    def running(self) -> list[ServerProcess]:
        """Return the servers whose process runs (it may be stopped)."""
        return [server for server in self.servers if server.pid is not None]

    async def look(self, server: ServerProcess) -> dict[str, Any] | None:
        """Return a glance at a server, None where it does not answer at once."""
        with contextlib.suppress(GoneError):
            return await server.call("look", timeout_s=0.5)
        return None

    async def leader(self) -> ServerProcess | None:
        """Return the leader of the highest term that any server knows of."""
        looks = [look for look in await asyncio.gather(*map(self.look, self.servers)) if look]
        known = [(look["term"], look["leader"]) for look in looks if look["leader"]]
        name = max(known)[1] if known else None
        return next((server for server in self.servers if server.name == name), None)

    async def await_agreement(self, *, settled: bool = False) -> None:
        """Wait until all servers follow one leader, and with ``settled`` have applied the same.

        Raises LabError after READY_S, or when a server ended by itself.
        """
        end = clock.now() + READY_S
        looks: list[dict[str, Any] | None] = []
        while clock.now() < end:
            for server in self.servers:
                server.require_healthy()
            looks = list(await asyncio.gather(*map(self.look, self.servers)))
            keys = ("leader", "term", *(("applied", "index") if settled else ()))
            views = {tuple(look[key] for key in keys) if look else None for look in looks}
            if len(views) == 1 and None not in views and looks[0] and looks[0]["leader"]:
                return
            await asyncio.sleep(POLL_S)
        raise LabError(f"the servers do not agree within {READY_S:.0f} s: {looks}")


@asynccontextmanager
async def cluster(network: Network, base: Path, plant: str) -> AsyncIterator[Cluster]:
    """Start a server in each namespace; kill all of them at the end."""
    members = [[f"ms{n}", f"{network.address(n)}:{RAFT_PORT}"] for n in network.numbers]
    servers = tuple(_server(network, number, base, members, plant) for number in network.numbers)
    try:
        for server in servers:
            await server.start()
        made = Cluster(servers, network)
        await made.await_agreement()
        yield made
    finally:
        for server in servers:
            await server.kill()


def _server(
    network: Network, number: int, base: Path, members: list[list[str]], plant: str
) -> ServerProcess:
    directory = base / f"ms{number}"
    directory.mkdir()
    argv = [
        *(sys.executable, "-m", "wgmap_chaos.logchaos.server", f"ms{number}", str(directory)),
        *(network.device(number), json.dumps(members), plant),
    ]
    return ServerProcess(number, shell.inside(network.netns(number), argv), base / f"{number}.log")
