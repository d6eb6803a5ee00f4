"""``python -m wgmap_cluster.supervisor.child PARENT MODULE ARGUMENTS...``.

Becomes ``python -m MODULE ARGUMENTS...``, which the kernel kills when its parent dies: a
supervisor that is killed leaves no process behind that answers or holds the log.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

from wgmap.errors import ExitCode

PR_SET_PDEATHSIG = 1  # linux/prctl.h; survives execve


def command(module: str, arguments: Sequence[str]) -> list[str]:
    """Return the command line of a child of this process."""
    parent = str(os.getpid())
    return [sys.executable, "-m", __spec__.name, parent, module, *arguments]


def main() -> int:
    """Tie this process to its parent and become the module."""
    parent, module, *arguments = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.stderr.write(f"prctl: {os.strerror(ctypes.get_errno())}\n")
        return ExitCode.FAILED
    if os.getppid() != int(parent):  # it died before it could be noticed
        return ExitCode.FAILED
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606


if __name__ == "__main__":
    sys.exit(main())
