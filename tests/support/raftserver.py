"""A server of the log in a process of its own: JSON lines on stdin, JSON lines on stdout.

Arguments: name, state directory, members as JSON [[name, address], ...], settings as JSON.
Exit code 70 and one line on stderr when the log cannot go on.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from support.raftlog import ListMachine
from wgmap_cluster.raft.interface import LogError, Member
from wgmap_cluster.raft.log import RaftLog
from wgmap_cluster.raft.settings import Settings


def end(error: LogError) -> None:
    """End at once, as the replica does."""
    sys.stderr.write(f"fatal: {error}\n")
    sys.stderr.flush()
    os._exit(70)


def _status(log: RaftLog) -> dict[str, Any]:
    status = log.status()
    return {"leader": status.leader, "applied": status.applied, "term": status.term}


async def answer(  # noqa: PLR0911  # one for each request
    log: RaftLog, machine: ListMachine, request: dict[str, Any]
) -> dict[str, Any]:
    match request["op"]:
        case "propose":
            proposal = await log.propose(request["command"].encode())
            return {"outcome": proposal.outcome.value, "index": proposal.index}
        case "read":
            return {"at": await log.read_barrier(), "count": len(machine.commands)}
        case "status":
            return _status(log)
        case "figures":
            return dict(log.figures())
        case "hand_over":
            return {"leader": await log.hand_over(request["target"])}
        case "snapshot":
            log.take_snapshot()
            return {}
        case _:
            return {"commands": [command.decode() for command in machine.commands]}


async def main() -> None:
    name, state_dir, members, settings = sys.argv[1:5]
    machine = ListMachine()
    servers = [Member(*member) for member in json.loads(members)]
    log = RaftLog(
        name, servers, Path(state_dir), machine, on_fatal=end,
        bind_device=os.environ.get("RAFT_DEVICE"),
        settings=Settings(**json.loads(settings)),
    )  # fmt: skip
    try:
        await log.start()
    except LogError as error:
        end(error)
    reader = asyncio.StreamReader(limit=1 << 20)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def serve(request: dict[str, Any]) -> None:
        reply = await answer(log, machine, request)
        sys.stdout.write(json.dumps({"id": request["id"], **reply}) + "\n")
        sys.stdout.flush()

    async with asyncio.TaskGroup() as tasks:
        while line := await reader.readline():
            tasks.create_task(serve(json.loads(line)))
    await log.stop()


if __name__ == "__main__":
    asyncio.run(main())
