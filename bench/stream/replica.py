"""The replica's own program, and a signal at which it writes a snapshot (SIGUSR1).

It writes one by itself after 50,000 entries: too seldom to be watched.
"""

import asyncio
import signal
import sys
from collections.abc import Callable

from wgmap_cluster.config import ServerConfig
from wgmap_cluster.fsm.machine import Machine
from wgmap_cluster.raft.interface import LogError
from wgmap_cluster.raft.log import RaftLog
from wgmap_cluster.replica import __main__ as program
from wgmap_cluster.replica.opening import open_log


def _opened(
    config: ServerConfig, machine: Machine, on_fatal: Callable[[LogError], None]
) -> RaftLog:
    log = open_log(config, machine, on_fatal)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, log.take_snapshot)
    return log


if __name__ == "__main__":
    program.open_log = _opened  # type: ignore[attr-defined]
    sys.exit(program.main())
