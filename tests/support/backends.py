"""The WireGuard backends of this machine; the fixture ``backend`` runs a test with each."""

import asyncio
import os

import pytest

from wgmap.wg.kernel import KernelBackend, available
from wgmap.wg.userspace import UserspaceBackend


def _kernel_has_wireguard() -> bool:
    return os.geteuid() == 0 and asyncio.run(available())


BACKENDS = [
    pytest.param(UserspaceBackend(), id="userspace"),
    pytest.param(
        KernelBackend(),
        id="kernel",
        marks=pytest.mark.skipif(
            not _kernel_has_wireguard(),
            reason="this kernel has no WireGuard (make test-kernel has one)",
        ),
    ),
]
