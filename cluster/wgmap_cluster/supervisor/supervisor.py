"""``wgmap-server run``: interfaces, socket, lock, and the two processes that do the work."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from wgmap import log, systemd
from wgmap.clock import now
from wgmap.config import load
from wgmap.errors import WgmapError
from wgmap.log import Log
from wgmap.signals import ending
from wgmap_cluster.config import ServerConfig
from wgmap_cluster.supervisor import reload, tunnels
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
        self._path = path
        self._config = config
        self._opened = opened
        self._ready = False
        self._answering = asyncio.Event()
        self._reloads = reload.Outcomes(config.server.state_dir)
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
                tasks.create_task(self._tell_alive())
                tasks.create_task(self._reload_on(signal.SIGHUP))
        finally:
            systemd.notify("STOPPING=1")
            await stop_all(self._children)
            (self._config.server.state_dir / PIDS_NAME).unlink(missing_ok=True)
            self._reloads.close()
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
        """Tell systemd when a responder answers with authority: then there is a leader too."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._ready_read, self._answers)
        try:
            await asyncio.Event().wait()
        finally:
            loop.remove_reader(self._ready_read)

    def _answers(self) -> None:
        os.read(self._ready_read, 1)
        self._answering.set()
        if not self._ready:
            self._ready = True
            _LOG.info("ready")
            systemd.notify("READY=1", "STATUS=answering")

    async def _tell_alive(self) -> NoReturn:
        """Feed systemd's watchdog; children that hang are ``Child``'s to end."""
        while True:
            systemd.notify("WATCHDOG=1")
            await asyncio.sleep(systemd.watchdog_interval_s())

    async def _reload_on(self, number: signal.Signals) -> NoReturn:
        asked = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
        while True:
            await asked.wait()
            asked.clear()
            await self._reload()

    async def _reload(self) -> None:
        """Start the children again with the configuration as it is now, one after the other.

        Datagrams wait in the socket meanwhile, and the responder answers while the replica is
        gone. A configuration that is wrong changes nothing.
        """
        try:
            reload.check(self._path, self._config)
            self._answering.clear()
            deadline = now() + reload.PATIENCE_S
            await self._responder.restart(deadline)
            async with asyncio.timeout(max(deadline - now(), 0.0)):
                await self._answering.wait()
            await self._replica.restart(deadline)
        except (WgmapError, TimeoutError) as error:
            reason = str(error) or "the children do not answer in time"
            _LOG.error("not reloaded", reason=reason)
            self._reloads.tell(reason)
        else:
            _LOG.info("reloaded")
            self._reloads.tell(None)
