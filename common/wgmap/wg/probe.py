"""Which WireGuard this machine has."""

import shutil
from pathlib import Path

from wgmap.errors import ConfigError
from wgmap.wg import kernel
from wgmap.wg.device import Backend
from wgmap.wg.userspace import UserspaceBackend


async def choose(log_dir: Path | None = None) -> Backend:
    """Return the backend to use, the kernel's where it has one; ConfigError where there is none.

    ``log_dir`` takes the errors of userspace processes (see UserspaceBackend).
    """
    if await kernel.available():
        return kernel.KernelBackend()
    if shutil.which("wireguard-go") is None:
        msg = "no WireGuard: the kernel has none, and wireguard-go is not installed"
        raise ConfigError(msg)
    return UserspaceBackend(log_dir)
