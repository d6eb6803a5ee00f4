"""``python -m wgmap_cluster.replica --config FILE``; started by the supervisor."""

import argparse
import asyncio
import contextlib
import random
import signal
import sys
from pathlib import Path

from wgmap import log
from wgmap.addresses import Endpoint
from wgmap.config import load
from wgmap.errors import ExitCode, WgmapError
from wgmap_cluster.admin.server import AdminServer
from wgmap_cluster.config import RAFT_PORT, BootstrapServer, ServerConfig
from wgmap_cluster.fsm.machine import Machine
from wgmap_cluster.raft.interface import LogError, Member
from wgmap_cluster.raft.log import RaftLog
from wgmap_cluster.replica import tunnels
from wgmap_cluster.replica.notes import ServerNote
from wgmap_cluster.replica.operations import Operations
from wgmap_cluster.replica.replica import Replica
from wgmap_cluster.replica.tunnels import Tunnels

NOTE_EVERY_S = 0.25
_LOG = log.Log("replica")


def main() -> int:
    """Run a replica until SIGTERM or SIGINT, or until its log cannot go on."""
    parser = argparse.ArgumentParser(prog="wgmap-replica", description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    options = parser.parse_args()
    log.setup("wgmap-replica")
    try:
        config = load(options.config, ServerConfig)
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(_run(config))
    except WgmapError as error:
        sys.stderr.write(f"wgmap-replica: {error}\n")
        return error.exit_code
    return ExitCode.OK


async def _run(config: ServerConfig) -> None:
    task = asyncio.current_task()
    assert task is not None, "runs in a task"
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    async with tunnels.opened(config) as opened:
        try:
            await _Process(config, opened).run()
        except* (WgmapError, LogError, OSError) as group:
            raise WgmapError("; ".join(str(error) for error in _leaves(group))) from None


class _Process:
    """A replica with its interfaces and its admin socket."""

    def __init__(self, config: ServerConfig, opened: Tunnels) -> None:
        self._config = config
        self._tunnels = opened
        self._fatal: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._replica = Replica(
            config,
            self._open_log,
            outer=None if config.control.unprotected else opened.outer,
            companions=lambda: [
                *opened.parts(), self._serve_operators(), self._publish(), self._watch_log()
            ],
        )  # fmt: skip
        opened.follow(self._replica.machine)

    async def run(self) -> None:
        """Run until cancelled; raises a group of what went wrong."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._replica.run())

    def _open_log(self, config: ServerConfig, machine: Machine) -> RaftLog:
        section = config.mesh
        return RaftLog(
            config.server.name,
            members(config),
            config.server.state_dir,
            machine,
            bind_device=None if section is None else section.interface,
            on_fatal=self._fail,
        )

    def _fail(self, error: LogError) -> None:
        if not self._fatal.done():
            self._fatal.set_exception(error)

    async def _watch_log(self) -> None:
        await self._fatal

    def _note(self) -> ServerNote:
        return ServerNote.of(
            self._replica.log.status(),
            fresh=self._replica.lease.fresh(),
            reachable_agents=self._tunnels.reachable_agents,
        )

    async def _publish(self) -> None:
        while True:
            self._replica.log.publish(self._note().encode())
            await asyncio.sleep(NOTE_EVERY_S * random.uniform(0.8, 1.2))  # noqa: S311  # spread

    async def _serve_operators(self) -> None:
        section = self._config.server
        operations = Operations(
            section.name, self._replica.machine, self._replica.log, self._note, section.staleness_s
        )
        server = AdminServer(operations, section.admin_socket)
        await server.start()
        try:
            await asyncio.Event().wait()
        finally:
            await server.stop()


def members(config: ServerConfig) -> tuple[Member, ...]:
    """Return the log's first servers; a server without a mesh is alone, on loopback."""
    if config.mesh is None:
        return (Member(config.server.name, f"[::1]:{RAFT_PORT}"),)
    port = config.mesh.raft_port
    return tuple(_member(server, port) for server in config.bootstrap.server)


def _member(server: BootstrapServer, port: int) -> Member:
    return Member(server.name, str(Endpoint(server.mesh_address, port)))


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


if __name__ == "__main__":
    sys.exit(main())
