"""``python -m wgmap_cluster.replica --config FILE``; started by the supervisor.

Ends with 0 after SIGTERM, 2 for a configuration that is wrong, 74 (EX_IOERR) where the log or
its disk failed and another start would not help, 1 otherwise; always with one line that says why.
"""

import argparse
import asyncio
import contextlib
import os
import sys
from functools import partial
from pathlib import Path
from typing import NoReturn

from wgmap import log
from wgmap.config import Listen, load
from wgmap.errors import ExitCode, WgmapError
from wgmap.metrics.listener import MetricsServer
from wgmap.signals import ending
from wgmap_cluster.admin.server import AdminServer
from wgmap_cluster.config import ServerConfig
from wgmap_cluster.fsm.machine import Machine
from wgmap_cluster.fsm.packing import PackingError
from wgmap_cluster.raft.interface import LogError
from wgmap_cluster.replica import tunnels
from wgmap_cluster.replica.measures import families
from wgmap_cluster.replica.opening import open_log
from wgmap_cluster.replica.replica import Part, Replica
from wgmap_cluster.supervisor import life

LOG_FAILED = os.EX_IOERR
Expected = (LogError, PackingError, WgmapError)


def main() -> int:
    """Run a replica until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="wgmap-replica", description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    options = parser.parse_args()
    log.setup("wgmap-replica")
    errors: list[Exception] = []
    try:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(_run(load(options.config, ServerConfig)))
    except* Expected as group:
        errors += _leaves(group)
    return _told(errors[0]) if errors else ExitCode.OK


async def _run(config: ServerConfig) -> None:
    task = asyncio.current_task()
    assert task is not None, "runs in a task"
    with ending(task.cancel):
        await _serving(config)


async def _serving(config: ServerConfig) -> None:
    failed: asyncio.Future[NoReturn] = asyncio.get_running_loop().create_future()

    def on_fatal(error: LogError) -> None:
        if not failed.done():
            failed.set_exception(error)

    machine = Machine()
    async with tunnels.opened(config, machine) as (control, mesh):
        replica = Replica(config, machine, open_log(config, machine, on_fatal), control)
        admin = AdminServer(replica.operations(), config.server.admin_socket, config.admin)
        others: list[Part] = [partial(_watch, failed), partial(_serve, admin), life.beat]
        if config.metrics.listen is not None:
            others.append(partial(_serve, _metrics(config.metrics.listen, replica)))
        if mesh is not None:
            others.append(mesh.run)
        await replica.run(*others)


async def _watch(failed: asyncio.Future[NoReturn]) -> None:
    await failed


def _metrics(listen: Listen, replica: Replica) -> MetricsServer:
    return MetricsServer(
        listen, lambda: families(replica.seen_now()), lambda: replica.seen_now().ready()
    )


async def _serve(server: AdminServer | MetricsServer) -> None:
    await server.start()
    try:
        await asyncio.Event().wait()
    finally:
        await server.stop()


def _leaves(group: BaseExceptionGroup[Exception]) -> list[Exception]:
    """List the single errors of a group; those of the log first, for others may follow from it."""
    found: list[Exception] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return sorted(found, key=lambda error: not isinstance(error, LogError))


def _told(error: Exception) -> int:
    sys.stderr.write(f"wgmap-replica: {error}\n")
    if isinstance(error, WgmapError):
        return error.exit_code
    return LOG_FAILED


if __name__ == "__main__":
    sys.exit(main())
