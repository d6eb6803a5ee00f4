"""``wgmap-server run``: interfaces, socket, lock, and the two processes that do the work."""

import asyncio
import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from wgmap import log, systemd
from wgmap.config import load
from wgmap.errors import WgmapError
from wgmap.log import Log
from wgmap.signals import ending
from wgmap_cluster.config import ServerConfig
from wgmap_cluster.supervisor import tunnels
from wgmap_cluster.supervisor.children import Child, stop_all
from wgmap_cluster.supervisor.lock import StateLock

PIDS_NAME = "pids.json"
_LOG = Log("supervisor")


def run(path: Path, replica: str = "wgmap_cluster.replica", *, verbose: bool = False) -> None:
    """Run a server in the foreground until SIGTERM or SIGINT; raises WgmapError.

    ``replica`` is the module that is run as the replica.
    """
    config = load(path, ServerConfig)
    plan = tunnels.plan(config)
    log.setup("wgmap-server", verbose=verbose)
    with StateLock(config.server.state_dir), contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_run(path.resolve(), config, plan, replica))


async def _run(path: Path, config: ServerConfig, plan: tunnels.Plan, replica: str) -> None:
    task = asyncio.current_task()
    assert task is not None, "runs in a task"
    if plan.interface is None:
        _LOG.warning(
            "UNPROTECTED map service: whoever reaches it can write any source address;"
            " for load generators and plain LISP clients only",
            listen=config.control.listen,
        )
    with ending(task.cancel):
        async with tunnels.opened(plan) as opened:
            try:
                await Supervisor(path, config, opened, replica).run()
            except* WgmapError as group:
                raise _first(group) from None


def _first(group: ExceptionGroup[WgmapError]) -> WgmapError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error


class Supervisor:
    """Keeps a server's children, given its open tunnels."""

    def __init__(
        self, path: Path, config: ServerConfig, opened: tunnels.Tunnels, replica: str
    ) -> None:
        """``path`` is the configuration that the children read."""
        self._config = config
        self._opened = opened
        self._ready_read, self._ready_write = os.pipe()
        arguments = ("--config", str(path))
        socket_fd = opened.udp.fileno()
        self._replica = Child("replica", replica, lambda: arguments)
        self._responder = Child(
            "responder",
            "wgmap_cluster.responder",
            lambda: (
                *arguments,
                *("--socket-fd", str(socket_fd)),
                *("--ready-fd", str(self._ready_write)),
            ),
            lambda: (socket_fd, self._ready_write),
        )

    @property
    def _children(self) -> Sequence[Child]:
        return self._replica, self._responder

    async def run(self) -> None:
        """Run until cancelled; a group of WgmapError where it cannot go on."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for child in self._children:
                    tasks.create_task(child.keep(self._write_pids))
                tasks.create_task(self._opened.watch())
                tasks.create_task(self._tell_ready())
        finally:
            systemd.notify("STOPPING=1")
            await stop_all(self._children)
            (self._config.server.state_dir / PIDS_NAME).unlink(missing_ok=True)
            os.close(self._ready_read)
            os.close(self._ready_write)

    def _write_pids(self) -> None:
        """Write who is who, for the lab and for people; a reader sees the old or the new."""
        pids = {"supervisor": os.getpid()} | {child.name: child.pid for child in self._children}
        path = self._config.server.state_dir / PIDS_NAME
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(pids) + "\n")
        temporary.replace(path)

    async def _tell_ready(self) -> None:
        """Tell systemd once the responder answers with authority: then there is a leader too."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._ready_read, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self._ready_read)
        _LOG.info("ready")
        systemd.notify("READY=1", "STATUS=answering")
