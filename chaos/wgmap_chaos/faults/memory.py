"""Processes that get no more memory: their cgroup is full, and the kernel takes back or kills."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random

from wgmap_chaos.faults.effect import until
from wgmap_chaos.faults.kind import Effect, Kind
from wgmap_chaos.faults.site import Site, replaced
from wgmap_chaos.lab import removal, topology
from wgmap_chaos.lab.errors import LabError

ROOT = Path("/sys/fs/cgroup/memory")  # cgroup v1
NO_LIMIT = "-1"
LEFT_BYTES = 1 << 17  # what a process has already stays counted in its old group
ROLES = ("replica", "responder")


class Group:
    """A cgroup of its own for one process, full from ``fill`` on."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def fill(self, pid: int) -> None:
        """Take a process in, and let it have next to nothing more; raises LabError."""
        try:
            self._path.mkdir()
            self._write("memory.limit_in_bytes", str(LEFT_BYTES))
            self._write("cgroup.procs", str(pid))
        except OSError as error:
            raise LabError(f"{self._path}: {error}") from error

    def refused(self) -> int:
        """Return how often more memory was asked for than there is; raises OSError."""
        return int(self._read("memory.failcnt"))

    async def end(self) -> None:
        """Give all of it back; raises LabError."""
        with suppress(FileNotFoundError):
            self._write("memory.limit_in_bytes", NO_LIMIT)
            for pid in self._read("cgroup.procs").split():
                with suppress(ProcessLookupError):
                    (self._path.parent / "cgroup.procs").write_text(pid)
            await until(self._gone, f"{self._path} ends")

    async def _gone(self) -> bool:
        with suppress(OSError):  # a process that was killed is not quite gone yet
            self._path.rmdir()
        return not self._path.exists()

    def _read(self, name: str) -> str:
        return (self._path / name).read_text().strip()

    def _write(self, name: str, text: str) -> None:
        (self._path / name).write_text(text)


@asynccontextmanager
async def runs_out(site: Site, rng: Random) -> AsyncIterator[Effect]:
    """Let a replica or a responder get no more memory; the kernel may kill it for that."""
    name, role = rng.choice(site.servers), rng.choice(ROLES)
    pid = site.role_pid(name, role)
    assert pid is not None, f"{role} runs"
    group = Group(ROOT / f"wgmap-{topology.lab_id(site.directory)}-{site.table()}")

    async def look() -> bool:
        await asyncio.gather(*(site.ask(name, "/v1/peers") for _ in range(4)))  # wants memory
        return group.refused() > 0

    try:
        group.fill(pid)
        await until(look, f"{name}: the {role} gets no more memory")
        yield Effect((name,), (role,))
    finally:
        await group.end()
        if not removal.alive(pid):
            await replaced(site, name, role, pid)


def missing() -> str:
    """Say what this machine lacks."""
    return "" if (ROOT / "memory.limit_in_bytes").exists() else f"cgroup v1's memory at {ROOT}"


KINDS = (Kind("memory runs out", "servers", runs_out, servers=1, missing=missing),)
