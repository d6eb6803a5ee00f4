"""Processes that can open next to nothing more."""

import asyncio
import os
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from random import Random

from wgmap_chaos.faults.effect import until
from wgmap_chaos.faults.kind import Effect, Kind
from wgmap_chaos.faults.site import Site

SPARE = 2  # so many more may be opened
KNOCK_S = 0.5
_LOWEST_FREE = 1  # a limit is one more than the highest number


@asynccontextmanager
async def few_descriptors(site: Site, rng: Random) -> AsyncIterator[Effect]:
    """Let a server's processes open next to nothing more, and take what is left of it.

    It is in force when a connection to the admin socket is not served while those before it stay.
    """
    name = rng.choice(site.servers)
    path = site.server(name).admin_socket
    pids = site.pids(name, ("replica", "responder"))
    with ExitStack() as taken:
        with limited(pids, SPARE):

            async def refuses() -> bool:
                return not await asyncio.to_thread(_served, path, taken)

            await until(refuses, f"{name} has no descriptors left")
            yield Effect((name,))
        taken.close()
        await until(lambda: _answers(site, name), f"{name} has descriptors again")


@contextmanager
def limited(pids: list[int], spare: int) -> Iterator[None]:
    """Let processes open only so many more files while the block runs."""
    before = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in pids}
    try:
        for pid, (_, hard) in before.items():
            used = max(map(int, os.listdir(f"/proc/{pid}/fd")))  # noqa: PTH208  # names are wanted
            limit = used + _LOWEST_FREE + spare
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, hard))
        yield
    finally:
        for pid, limits in before.items():
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


def _served(path: Path, taken: ExitStack) -> bool:
    """Connect, ask, and say whether an answer came; the connection stays open."""
    knocker = taken.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    knocker.settimeout(KNOCK_S)
    try:
        knocker.connect(str(path))
        knocker.send(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return bool(knocker.recv(1))
    except OSError:
        return False


async def _answers(site: Site, name: str) -> bool:
    return await site.status(name) is not None


KINDS = (Kind("few descriptors", "servers", few_descriptors, servers=1),)
