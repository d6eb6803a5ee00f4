"""The processes that a supervisor keeps: started, watched, started again, ended in time."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from wgmap.clock import now
from wgmap.errors import ConfigError, ExitCode, WgmapError
from wgmap.log import Log
from wgmap_cluster.supervisor import child, life
from wgmap_cluster.supervisor.restarts import Restarts

LOG_FAILED = os.EX_IOERR  # the replica's log or its disk failed: to start again is no help
STOP_S = 5.0  # between SIGTERM and SIGKILL
POLL_S = 0.05
LOOK_S = 1.0  # how often a child's signs of life are looked for
_LOG = Log("supervisor")


class ChildError(WgmapError):
    """A child ended in a way that another start would not mend."""


@dataclass(slots=True)
class Child:
    """One process; ``arguments`` are taken anew at each start, ``descriptors`` are passed down."""

    name: str
    module: str
    arguments: Callable[[], Sequence[str]]
    descriptors: Callable[[], Sequence[int]] = tuple
    patience: life.Patience = life.PATIENCE
    process: subprocess.Popen[bytes] | None = None
    _life: life.Listener | None = None
    _restarts: Restarts = field(default_factory=Restarts)

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self.process.pid if self.process else None

    async def keep(self, started: Callable[[], None]) -> NoReturn:
        """Keep it running until cancelled; raises ChildError, ConfigError."""
        while True:
            began = now()
            self._start()
            started()
            code = await self._ended()
            lived = now() - began
            self._judge(code)
            delay = self._restarts.delay(lived)
            _LOG.error(f"{self.name} ended", how=_how(code), lived_s=lived, again_in_s=delay)
            await asyncio.sleep(delay)

    async def restart(self, deadline: float) -> None:
        """Let it end, so that ``keep`` starts it again; returns when another one runs.

        Raises TimeoutError after ``deadline``.
        """
        old = self.process
        if old is not None:
            old.send_signal(signal.SIGTERM)
        killed_at = now() + STOP_S
        async with asyncio.timeout(max(deadline - now(), 0.0)):
            while self.process is None or self.process is old:
                if old is not None and self.process is old and now() > killed_at:
                    old.kill()
                await asyncio.sleep(POLL_S)  # another task is what starts it

    async def stop(self, deadline: float) -> None:
        """End it: SIGTERM, and SIGKILL at ``deadline``."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(max(deadline - now(), 0.0)):
                await self._ended()
        except TimeoutError:
            _LOG.warning(f"{self.name} did not end in time and is killed")
            self.kill()

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self._gone()

    def _start(self) -> None:
        self._life = listener = life.Listener(self.patience)
        try:
            self.process = subprocess.Popen(  # noqa: S603  # our own modules
                child.command(self.module, self.arguments()),
                stdin=subprocess.DEVNULL,
                pass_fds=(*self.descriptors(), listener.write_fd),
                env=os.environ | {life.ENVIRONMENT: str(listener.write_fd)},
                # What a terminal sends to the group is the supervisor's to pass on.
                process_group=0,
            )
        except OSError as error:
            listener.close()
            raise ChildError(f"cannot start the {self.name}: {error.strerror}") from error
        listener.handed_over()
        _LOG.info(f"{self.name} started", pid=self.process.pid)

    async def _ended(self) -> int:
        """Wait for its end without a thread; returns its code (negative: the signal)."""
        assert self.process is not None, "it was started"
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        descriptor = os.pidfd_open(self.process.pid)
        loop.add_reader(descriptor, ended.set)
        try:
            while not ended.is_set():
                self._kill_if_silent()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), LOOK_S)
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        code = self.process.wait()
        self._gone()
        return code

    def _gone(self) -> None:
        self.process = None
        if self._life is not None:
            self._life.close()
            self._life = None

    def _kill_if_silent(self) -> None:
        if self.process is not None and self._life is not None and self._life.is_silent():
            _LOG.error(f"{self.name} gives no sign of life and is killed", pid=self.process.pid)
            self.process.kill()

    def _judge(self, code: int) -> None:
        if code == ExitCode.USAGE:
            raise ConfigError(f"the {self.name} refuses the configuration (see above)")
        if code == LOG_FAILED:
            raise ChildError(f"the {self.name} ended: its log or disk failed (see above)")


def _how(code: int) -> str:
    return f"code {code}" if code >= 0 else signal.Signals(-code).name


async def stop_all(children: Sequence[Child]) -> None:
    """End children at the same time; whatever happens none is left."""
    deadline = now() + STOP_S
    try:
        await asyncio.gather(*(one.stop(deadline) for one in children))
    finally:
        for one in children:
            one.kill()
