"""One server of the log as a process: JSON lines in, JSON lines out.

``python -m wgmap_chaos.logchaos.server NAME DIRECTORY DEVICE MEMBERS PLANT``; it ends with its
standard input. PLANT breaks a promise on purpose, to show that the judge notices: ``early-ack``
reports writes as applied before they are, ``local-read`` reads without asking anybody.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from wgmap_chaos.logchaos.ledger import Ledger, put
from wgmap_cluster.raft.interface import LogError, Member
from wgmap_cluster.raft.log import RaftLog
from wgmap_cluster.raft.settings import MIB, Settings

PLANTS = ("none", "early-ack", "local-read")
# Snapshots and compactions all the time, and servers that come back often need an install.
SETTINGS = Settings(snapshot_entries=1500, snapshot_bytes=MIB, retain_entries=300)
LINE_LIMIT = 1 << 27
EX_IOERR = 74


class Server:
    """Answers requests about one log."""

    def __init__(self, log: RaftLog, ledger: Ledger, plant: str) -> None:
        """``plant`` is one of PLANTS."""
        self._log, self._ledger, self._plant = log, ledger, plant
        self._early: set[asyncio.Task[Any]] = set()

    async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer one request."""
        match request["op"]:
            case "put":
                return {"outcome": await self._put(put(request["key"], request["number"]))}
            case "get":
                return await self._get()
            case "dump":
                return {**self._look(), "entries": self._ledger.entries}
            case _:
                return self._look()

    async def _put(self, command: bytes) -> str:
        if self._plant == "early-ack":
            task = asyncio.create_task(self._log.propose(command))
            self._early.add(task)
            task.add_done_callback(self._early.discard)
            return "applied"
        return (await self._log.propose(command)).outcome.value

    async def _get(self) -> dict[str, Any]:
        at = 0 if self._plant == "local-read" else await self._log.read_barrier()
        return {"confirmed": at is not None, "best": self._ledger.best, **self._look()}

    def _look(self) -> dict[str, Any]:
        status = self._log.status()
        ledger = self._ledger
        return {
            "leader": status.leader,
            "term": status.term,
            "applied": status.applied,
            "index": ledger.index,
            "digest": ledger.digest.hex(),
        }


def _end(error: LogError) -> None:
    sys.stderr.write(f"fatal: {error}\n")
    sys.stderr.flush()
    os._exit(EX_IOERR)


async def _serve(server: Server, line: bytes) -> None:
    request = json.loads(line)
    try:
        reply = await server.answer(request)
    except LogError as error:
        _end(error)
        return
    sys.stdout.write(json.dumps({"id": request["id"], **reply}) + "\n")
    sys.stdout.flush()


async def _run(name: str, directory: str, device: str, members: str, plant: str) -> None:
    ledger = Ledger()
    servers = [Member(*each) for each in json.loads(members)]
    log = RaftLog(
        *(name, servers, Path(directory), ledger),
        bind_device=device,
        settings=SETTINGS,
        on_fatal=_end,
    )
    try:
        await log.start()
    except LogError as error:
        _end(error)
    server = Server(log, ledger, plant)
    reader = asyncio.StreamReader(limit=LINE_LIMIT)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with asyncio.TaskGroup() as tasks:
        while line := await reader.readline():
            tasks.create_task(_serve(server, line))
    await log.stop()


if __name__ == "__main__":
    asyncio.run(_run(*sys.argv[1:6]))
