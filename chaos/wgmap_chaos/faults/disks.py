"""Disks that are slow, fail, are full, or lost the end of a write."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from random import Random

from wgmap_chaos.faults import processes
from wgmap_chaos.faults.effect import until, until_true
from wgmap_chaos.faults.kind import Effect, Kind
from wgmap_chaos.faults.site import SERVER_ROLES, Site
from wgmap_chaos.lab import removal
from wgmap_cluster.raft.node import WAL_NAME

SLOW_MS = (50, 400)
SYNCS = "fsync,fdatasync"
WRITES = "write,writev,pwrite64"
_BATCH = b"WGB1"  # how a batch of the log begins (wgmap_cluster.raft.wal)
TRACED_S = (0.5, 2.0)  # before the power goes
LETS_GO_S = 5.0
_RESULT = re.compile(r"\) += (-?\d+)")
_TRACED = "TracerPid:\t"


@asynccontextmanager
async def injected(pid: int, *arguments: str) -> AsyncIterator[None]:
    """Have strace change what a process's system calls do, while it lives."""
    async with traced(pid, Path("/dev/null"), *arguments):
        yield


@asynccontextmanager
async def traced(pid: int, out: Path, *arguments: str) -> AsyncIterator[None]:
    """Have strace write down what a process does, while it lives."""
    argv = ["strace", "-f", "-qq", "-o", str(out), *arguments, "-p", str(pid)]
    strace = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await until_true(lambda: _has_tracer(pid) or not removal.alive(pid), "strace")
        yield
    finally:
        await _end(strace)
    await until_true(lambda: not _has_tracer(pid), "strace lets go")


async def _end(strace: asyncio.subprocess.Process) -> None:
    """Have strace let go, or end it: the kernel lets go for it then.

    strace 6.1 waits for ever where what it traced is killed while it lets go: it wants to hear of
    the process, whose end is told only after those of its threads, for which it does not ask.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            strace.send_signal(number)
        with suppress(TimeoutError):
            await asyncio.wait_for(strace.wait(), LETS_GO_S)
            return


def _has_tracer(pid: int) -> bool:
    with suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        return status.partition(_TRACED)[2][:1] not in ("", "0")
    return False


def _victim(site: Site, rng: Random) -> tuple[str, int]:
    name = rng.choice(site.servers)
    pid = site.role_pid(name, "replica")
    assert pid is not None, "the replica runs"
    return name, pid


@asynccontextmanager
async def slow_disk(site: Site, rng: Random) -> AsyncIterator[Effect]:
    """Let every sync of a server take longer."""
    name, pid = _victim(site, rng)
    delay = rng.randint(*SLOW_MS) * 1000
    before = await _syncs_us(site, name)
    inject = f"inject={SYNCS}:delay_enter={delay}"
    async with injected(pid, "-e", f"trace={SYNCS}", "-e", inject):

        async def look() -> bool:
            return await _syncs_us(site, name) >= before + delay

        await until(look, "a slow sync")
        yield Effect((name,))


async def _syncs_us(site: Site, name: str) -> int:
    """Return what a server's syncs took so far; 0 where it does not say."""
    counters = await site.ask(name, "/v1/counters")
    return int(counters["log"].get("syncs_us", 0)) if counters else 0


@asynccontextmanager
async def _broken_disk(
    site: Site, rng: Random, calls: str, error: str, *, log_only: bool = False
) -> AsyncIterator[Effect]:
    """Let system calls fail until the server has given up; it is started again on a good disk.

    The supervisor starts no other replica where the log failed: it ends with it, and what brings
    the server back is the init system, which a lab does not have.
    """
    name, pid = _victim(site, rng)
    inject = f"inject={calls}:error={error}"
    only = ("-P", str(_log(site, name))) if log_only else ()
    async with injected(pid, *only, "-e", f"trace={calls}", "-e", inject):
        await until_true(lambda: not removal.alive(pid), f"{name} ends where its disk fails")
    await until_true(lambda: not site.pids(name), f"all of {name} ends with its log")
    try:
        yield Effect((name,), SERVER_ROLES)
    finally:
        await site.start_servers([name])


@asynccontextmanager
async def failing_disk(site: Site, rng: Random) -> AsyncIterator[Effect]:
    """Let a server's syncs fail: it must end, for nobody knows what is on the disk."""
    async with _broken_disk(site, rng, SYNCS, "EIO") as effect:
        yield effect


@asynccontextmanager
async def full_disk(site: Site, rng: Random) -> AsyncIterator[Effect]:
    """Let a server's writes to its log fail for want of space."""
    async with _broken_disk(site, rng, WRITES, "ENOSPC", log_only=True) as effect:
        yield effect


@asynccontextmanager
async def torn_tail(site: Site, rng: Random) -> AsyncIterator[Effect]:
    """Kill a server in the middle of a write: a part of a batch stands at the end of its log."""
    name = rng.choice(site.servers)
    await processes.kill(site.pids(name))
    log = _log(site, name)
    size = log.stat().st_size
    with log.open("ab") as file:
        file.write(_BATCH + rng.randbytes(rng.randint(1, 400)))
    assert log.stat().st_size > size, "it is longer"
    try:
        yield Effect((name,), SERVER_ROLES)
    finally:
        await site.start_servers([name])


@asynccontextmanager
async def power_loss(site: Site, rng: Random) -> AsyncIterator[Effect]:
    """Kill every server, and take from each log what was written and not synced.

    A killed process loses nothing that it has written; a machine without power does. strace tells
    what each write to the log was and which sync came after it.
    """
    names = list(site.servers)
    traces = {name: site.directory / f"{name}.trace" for name in names}
    pids = {name: site.role_pid(name, "replica") for name in names}
    async with AsyncExitStack() as stack:
        for name, pid in pids.items():
            assert pid is not None, "the replica runs"
            only = ("-P", str(_log(site, name)), "-e", f"trace={WRITES},{SYNCS}")
            await stack.enter_async_context(traced(pid, traces[name], *only))
        await asyncio.sleep(rng.uniform(*TRACED_S))
        await processes.kill([pid for name in names for pid in site.pids(name)])
    for name in names:
        log, lost = _log(site, name), unsynced(traces[name].read_text())
        os.truncate(log, log.stat().st_size - lost)
    try:
        yield Effect(tuple(names), SERVER_ROLES)
    finally:
        await site.start_servers(names)


def unsynced(trace: str) -> int:
    """Return how many bytes were written after the last sync that came to its end."""
    written = 0
    for line in trace.splitlines():
        result = _RESULT.search(line)
        if result is None:  # unfinished, or a signal
            continue
        if "sync" in line and result[1] == "0":
            written = 0
        elif "write" in line:
            written += max(0, int(result[1]))
    return written


def _log(site: Site, name: str) -> Path:
    """Return the file of a server's log."""
    return site.server(name).state_dir / WAL_NAME


KINDS = (
    Kind("a slow disk", "servers", slow_disk, servers=1),
    Kind("a failing disk", "servers", failing_disk),
    Kind("a full disk", "servers", full_disk),
    Kind("a torn tail", "servers", torn_tail),
    Kind("the power goes", "servers", power_loss),
)
