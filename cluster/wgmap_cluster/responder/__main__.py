"""``python -m wgmap_cluster.responder --config FILE --socket-fd N [--ready-fd N]``.

Started by the supervisor, which owns the UDP socket and passes it down. Where a ready-fd is
given, one byte is written to it as soon as answers are authoritative for the first time.
"""

import argparse
import asyncio
import contextlib
import ipaddress
import os
import random
import socket
import sys
from pathlib import Path

from wgmap import log
from wgmap.config import load
from wgmap.errors import ExitCode, WgmapError
from wgmap.signals import ending
from wgmap_cluster.config import ServerConfig
from wgmap_cluster.responder.announcer import PushSettings
from wgmap_cluster.responder.runner import Responder
from wgmap_cluster.responder.service import Service, Settings

REFRESH_S = 2.0  # whoever asked has asked another server by then


def main() -> int:
    """Run a responder until SIGTERM or SIGINT."""
    options = _options()
    log.setup("wgmap-responder")
    try:
        config = load(options.config, ServerConfig)
        udp = _inherited(options.socket_fd)
    except WgmapError as error:
        sys.stderr.write(f"wgmap-responder: {error}\n")
        return error.exit_code
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_run(config, udp, options.ready_fd))
    return ExitCode.OK


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="wgmap-responder", description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--socket-fd", type=int, required=True)
    parser.add_argument("--ready-fd", type=int)
    return parser.parse_args()


def _inherited(number: int) -> socket.socket:
    """Take over the supervisor's UDP socket; raises WgmapError."""
    try:
        udp = socket.socket(fileno=number)
        if udp.type != socket.SOCK_DGRAM or udp.family not in (socket.AF_INET, socket.AF_INET6):
            raise WgmapError(f"--socket-fd {number} is no UDP socket")
    except OSError as error:
        raise WgmapError(f"--socket-fd {number}: {error.strerror}") from error
    udp.setblocking(False)
    return udp


def _settings(config: ServerConfig, udp: socket.socket) -> Settings:
    pushes = PushSettings(ipaddress.ip_address(udp.getsockname()[0]))
    patience_s = min(config.server.staleness_s, REFRESH_S)
    # A source address that anybody can write says nothing about who asks: a limit would only
    # let a stranger use it up. The replica bounds what it takes in; load generators ask as fast
    # as they can.
    if config.control.unprotected:
        return Settings(pushes, requests=None, registers=None, patience_s=patience_s)
    return Settings(pushes, patience_s=patience_s)


async def _run(config: ServerConfig, udp: socket.socket, ready_fd: int | None) -> None:
    # Nonces must not be guessed, so they come from the operating system.
    service = Service(_settings(config, udp), random.SystemRandom())
    responder = Responder(service, udp, config.server.state_dir)
    if ready_fd is not None:
        responder.on_first_lease(lambda: _tell_ready(ready_fd))
    task = asyncio.current_task()
    assert task is not None, "runs in a task"
    with ending(task.cancel):
        await responder.run()


def _tell_ready(ready_fd: int) -> None:
    with contextlib.suppress(OSError):  # the supervisor is gone: then so are we, soon
        os.write(ready_fd, b"1")
    os.close(ready_fd)


if __name__ == "__main__":
    sys.exit(main())
