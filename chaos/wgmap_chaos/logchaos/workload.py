"""Clients: writers and readers that go on whatever happens, and record what they saw and when."""

import asyncio
from random import Random

from wgmap import clock
from wgmap_chaos.logchaos.cluster import Cluster, GoneError, ServerProcess
from wgmap_chaos.logchaos.judge import Final, History, Read, Write

WRITERS, READERS = 8, 4
PAUSE_S = 0.01  # after each call
STAY = 0.8  # how often a client asks the server that answered it last
LOOK_S = 0.2
DUMP_S = 60.0
NOT_SENT = "not sent"  # the server was down: nobody proposed anything


class Workload:
    """All clients of a run; they share one clock, and the history."""

    def __init__(self, cluster: Cluster, rng: Random) -> None:
        """``rng`` chooses whom clients ask."""
        self._cluster, self._rng = cluster, rng
        self._stop = asyncio.Event()
        self.history = History()
        self.refused = 0  # reads that nobody confirmed

    async def run(self) -> None:
        """Write and read until stopped."""
        async with asyncio.TaskGroup() as clients:
            for key in range(WRITERS):
                clients.create_task(self._write(key))
            for _ in range(READERS):
                clients.create_task(self._read())
            clients.create_task(self._look())

    def stop(self) -> None:
        """Let every client finish its last call."""
        self._stop.set()

    async def gather(self) -> None:
        """Ask every server for all it has; raises GoneError."""
        for server in self._cluster.servers:
            dump = await server.call("dump", timeout_s=DUMP_S)
            entries = [(key, number) for key, number in dump["entries"]]
            final = Final(server.name, dump["index"], dump["digest"], entries)
            self.history.finals.append(final)

    async def _write(self, key: int) -> None:
        server, number = self._any(), 0
        while not self._stop.is_set():
            number += 1
            begun = clock.now()
            outcome = await self._put(server, key, number)
            if outcome != NOT_SENT:
                self.history.writes.append(Write(key, number, begun, clock.now(), outcome))
            await asyncio.sleep(PAUSE_S)
            server = self._next(server, well=outcome == "applied")

    @staticmethod
    async def _put(server: ServerProcess, key: int, number: int) -> str:
        if server.pid is None:
            return NOT_SENT
        try:
            return str((await server.call("put", key=key, number=number))["outcome"])
        except GoneError:
            return "unknown"

    async def _read(self) -> None:
        server = self._any()
        while not self._stop.is_set():
            well = await self._get(server)
            self.refused += not well
            await asyncio.sleep(PAUSE_S)
            server = self._next(server, well=well)

    async def _get(self, server: ServerProcess) -> bool:
        begun = clock.now()
        try:
            reply = await server.call("get")
        except GoneError:
            return False
        self.history.sight(server.name, reply["index"], reply["digest"])
        if reply["confirmed"]:
            best = {int(key): number for key, number in reply["best"].items()}
            self.history.reads.append(Read(server.name, begun, clock.now(), best))
        return bool(reply["confirmed"])

    async def _look(self) -> None:
        """Compare the servers all the time, those too that cannot confirm a read."""
        while not self._stop.is_set():
            for server in self._cluster.servers:
                if look := await self._cluster.look(server):
                    self.history.sight(server.name, look["index"], look["digest"])
            await asyncio.sleep(LOOK_S)

    def _any(self) -> ServerProcess:
        return self._rng.choice(self._cluster.servers)

    def _next(self, server: ServerProcess, *, well: bool) -> ServerProcess:
        return server if well and self._rng.random() < STAY else self._any()
