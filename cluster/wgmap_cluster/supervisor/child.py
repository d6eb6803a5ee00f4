"""``python -m wgmap_cluster.supervisor.child PARENT MODULE ARGUMENTS...``.

Becomes ``python -m MODULE ARGUMENTS...``, which the kernel kills when its parent dies: a
supervisor that is killed leaves no process behind that answers or holds the log.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

PR_SET_PDEATHSIG = 1  # linux/prctl.h; survives execve


def command(module: str, arguments: Sequence[str]) -> list[str]:
    """Return the command line of a child of this process."""
    parent = str(os.getpid())
    return [sys.executable, "-m", __spec__.name, parent, module, *arguments]


def main() -> NoReturn:
    """Tie this process to its parent and become the module."""
    parent, module, *arguments = sys.argv[1:]
    _die_with(int(parent))
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606


def _die_with(parent: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:
        sys.exit("the parent died before this could be tied to it")


if __name__ == "__main__":
    main()
