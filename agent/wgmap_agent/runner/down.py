"""`wgmap-agent down`: removes what the agent made on this machine, and nothing else.

The interfaces take their addresses and routes with them. Keys and state stay: after the next
start the agent is who it was.
"""

import asyncio
import contextlib
from pathlib import Path

from wgmap.errors import ConflictError, UnavailableError
from wgmap.log import Log
from wgmap.net.netlink import Network
from wgmap.wg import probe
from wgmap_agent.config import AgentConfig
from wgmap_agent.runner import statussocket, tun
from wgmap_agent.runner.store import Store

STOP_S = 10.0  # how long a running agent may take to stop
POLL_S = 0.05

log = Log("agent.down")


async def down(config: AgentConfig) -> None:
    """Stop a running agent, then remove the interfaces; can be repeated.

    Raises ConflictError where the agent does not stop, DeviceError or NetworkError where
    something cannot be removed.
    """
    await asyncio.to_thread(_stop, config.agent.socket)
    with await _lock(config.agent.state_dir):
        backend = await probe.choose()
        for interface, _ in config.data.places:
            await backend.remove(interface)
        await backend.remove(config.control.interface)
        tun.remove(config.tun.interface)
        async with Network() as network:
            await network.set_rules(())
        with contextlib.suppress(FileNotFoundError):
            config.agent.socket.unlink()


def _stop(path: Path) -> None:
    with contextlib.suppress(UnavailableError):  # nobody listens: it does not run
        statussocket.request(path, {"op": "stop"})


async def _lock(directory: Path) -> contextlib.AbstractContextManager[object]:
    """Wait until the agent has let go of its state."""
    loop = asyncio.get_running_loop()
    end = loop.time() + STOP_S
    while (lock := _try_lock(directory, last=loop.time() > end)) is None:  # noqa: ASYNC110
        await asyncio.sleep(POLL_S)
    return lock


def _try_lock(directory: Path, *, last: bool) -> contextlib.AbstractContextManager[object] | None:
    if not directory.exists():
        return contextlib.nullcontext()
    try:
        return Store(directory)
    except ConflictError:
        if last:
            raise
    return None
