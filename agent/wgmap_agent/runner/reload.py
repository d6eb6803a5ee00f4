"""A configuration that changed under a running agent: it begins anew and keeps everything open.

Tunnels are adopted as at every start. The TUN stays open meanwhile, so that the kernel keeps first
packets, and nobody's packets are held when the old agent lets go.
"""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from wgmap import clock
from wgmap.config import load
from wgmap.errors import ConfigError, WgmapError
from wgmap.log import Log
from wgmap_agent.config import AgentConfig

PATIENCE_S = (
    2.0  # a first contact takes milliseconds; packets nobody answers for are not waited for
)
_POLL_S = 0.01

log = Log("agent.reload")


class ReloadError(WgmapError):
    """Not an error: another configuration is to be used from now on."""

    def __init__(self, config: AgentConfig) -> None:
        """``config`` is the new one."""
        super().__init__("the configuration was read anew")
        self.config = config


def asked_by_signal() -> asyncio.Event:
    """Return what SIGHUP sets, from now on: also one that comes while the agent begins anew."""
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
    return asked


class Reloader:
    """Takes over another configuration when it is asked to."""

    def __init__(
        self,
        path: Path,
        running: AgentConfig,
        asked: asyncio.Event,
        stop_reading: Callable[[], None],
        held: Callable[[], int],
    ) -> None:
        """``stop_reading`` leaves new packets in the TUN; ``held``: how many wait for a tunnel."""
        self._path = path
        self._running = running
        self._asked = asked
        self._stop_reading = stop_reading
        self._held = held

    async def run(self) -> NoReturn:
        """Wait until another configuration is to be used; raises ReloadError."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            config = self._read()
            if config is not None:
                self._stop_reading()
                await self._nothing_held()
                raise ReloadError(config)

    def _read(self) -> AgentConfig | None:
        try:
            return check(self._path, self._running)
        except ConfigError as error:
            log.warning("not reloaded", reason=error)
            return None

    async def _nothing_held(self) -> None:
        end = clock.now() + PATIENCE_S
        # The engine tells nobody when the last packet leaves, and no more often is it asked.
        while self._held() and clock.now() < end:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)


def check(path: Path, running: AgentConfig) -> AgentConfig:
    """Read the configuration anew; ConfigError where it is wrong or wants a restart."""
    new = load(path, AgentConfig)
    same = {
        "agent.state_dir": new.agent.state_dir == running.agent.state_dir,
        "agent.instance": new.agent.instance == running.agent.instance,
        "tun.interface": new.tun.interface == running.tun.interface,
        "control.interface": new.control.interface == running.control.interface,
        "data.interface": new.data.interface == running.data.interface,
    }
    changed = [name for name, is_same in same.items() if not is_same]
    if changed:
        raise ConfigError(f"{path}: {', '.join(changed)}: changed; this wants a restart")
    return new
