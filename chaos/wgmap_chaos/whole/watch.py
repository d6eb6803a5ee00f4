"""Watches every process of a lab: what it uses, and whether it is still the same one."""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from wgmap.clock import now
from wgmap_chaos.faults.servers import WIREGUARD
from wgmap_chaos.faults.site import Site
from wgmap_chaos.history.records import Record, Said, Sample, Vanished
from wgmap_chaos.lab import observation, removal, topology

LOOK_S = 1.0
SAMPLE_EACH = 5  # looks
_PAGE = os.sysconf("SC_PAGE_SIZE")
_BAD = ("Traceback (most recent call last)", "was never retrieved", "ResourceWarning")
_MOST_SAID = 20  # of one log


class Watch:
    """Looks again and again until it is cancelled."""

    def __init__(self, site: Site, record: Callable[[Record], None]) -> None:
        self._site, self._record = site, record
        self._seen: dict[tuple[str, str], tuple[int, float]] = {}  # process -> pid, last seen

    async def run(self) -> None:
        """Go on for ever."""
        number = 0
        while True:
            found = dict(self._processes())
            self._compare(found)
            if number % SAMPLE_EACH == 0:
                self._sample(found)
            number += 1
            await asyncio.sleep(LOOK_S)

    def _processes(self) -> Iterator[tuple[tuple[str, str], int]]:
        for server in self._site.lab.servers:
            for role, pid in observation.server_pids(server.netns, server.state_dir).items():
                if pid is not None:
                    yield (server.name, role), pid
        for agent in self._site.lab.agents:
            pid = agent.pids["agent"]
            if pid is not None and removal.alive(pid):
                yield (agent.name, "agent"), pid
        for name, interfaces in self._interfaces():
            for interface in interfaces:
                if (pid := observation.wireguard_pid(interface)) is not None:
                    yield (name, f"{WIREGUARD} {interface.rpartition('-')[2]}"), pid

    def _interfaces(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        for server in self._site.lab.servers:
            yield server.name, (server.control_interface, server.mesh_interface)
        for agent in self._site.lab.agents:
            yield agent.name, agent.interfaces

    def _compare(self, found: dict[tuple[str, str], int]) -> None:
        time = now()
        for process, (pid, seen) in list(self._seen.items()):
            if found.get(process) != pid:
                host, role = process
                self._record(Vanished(host=host, role=role, pid=pid, seen=seen, missed=time))
                del self._seen[process]
        self._seen.update({process: (pid, time) for process, pid in found.items()})

    def _sample(self, found: dict[tuple[str, str], int]) -> None:
        time = now()
        for (host, role), pid in found.items():
            with suppress(OSError):
                pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                fds = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208  # no objects wanted
                mb = pages * _PAGE / 1e6
                self._record(Sample(at=time, host=host, role=role, pid=pid, rss_mb=mb, fds=fds))


def said(site: Site) -> Iterator[Said]:
    """Yield every traceback in the daemons' logs, with its last line."""
    logs = topology.paths(site.directory).logs
    for path in sorted(logs.glob("*.log")):
        lines = path.read_text(errors="replace").splitlines()
        for number in [n for n, line in enumerate(lines) if _is_bad(line)][:_MOST_SAID]:
            yield Said(host=path.stem, text=_ending(lines, number))


def _is_bad(line: str) -> bool:
    return any(word in line for word in _BAD)


def _ending(lines: list[str], number: int) -> str:
    """Return the line after the frames: what was raised."""
    for line in lines[number + 1 :]:
        if line and not line.startswith(" "):
            return f"{lines[number].strip()} ... {line.strip()}"[:300]
    return lines[number].strip()
