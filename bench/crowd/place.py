"""Where a crowd is on a lab's underlay, and the process that it is."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crowd.members import PLACES, Member, enrolments
from crowd.registers import Kind
from wgmap_chaos.lab import shell, topology
from wgmap_chaos.lab.inventory import Inventory
from wgmap_chaos.load import place
from wgmap_cluster.cli.client import Client

BENCH = Path(__file__).resolve().parent.parent


class Crowd:
    """The process; every call waits for its answer."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.pid = process.pid

    def join(self, first: int, count: int, window: int = 64) -> dict[str, Any]:
        """Have so many members register, so many of them at a time."""
        return self.call({"op": "join", "first": first, "count": count, "window": window})

    def live(self) -> None:
        """Have all members say what agents say."""
        self.call({"op": "live"})

    def answered(self) -> float:
        """Have a member ask until it is answered; return when that was (``wgmap.clock``)."""
        at: float = self.call({"op": "answered"})["at"]
        return at

    def registers(self, server: str, window: int, seconds: float, kind: Kind) -> dict[str, Any]:
        """Have members register at a server without a pause, so many at a time."""
        of = {"server": server, "window": window, "seconds": seconds, "kind": kind}
        return self.call({"op": "registers", **of})

    def watch(self, seconds: float, period_s: float) -> dict[str, Any]:
        """Have members ask all servers in each period; return when who answered what."""
        return self.call({"op": "watch", "seconds": seconds, "period_s": period_s})

    def counts(self) -> dict[str, Any]:
        """Return what was said and heard so far."""
        return self.call({"op": "counts"})

    def call(self, what: dict[str, Any]) -> dict[str, Any]:
        """Say one line, and read one; raises RuntimeError where the process has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the crowd has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def crowd(directory: Path, lab: Inventory) -> Iterator[Crowd]:
    """Make the place on a running lab's underlay, and run the crowd there."""
    planned = topology.plan(directory, len(lab.servers), len(lab.agents))
    netns = place.make(planned)
    shell.run(["ip", "-n", netns, "route", "add", "local", str(PLACES), "dev", "lo"])
    for host in lab.hosts:
        way = ["route", "add", str(PLACES), "via", str(place.ADDRESS)]
        shell.run(["ip", "-n", host.netns, *way])
    with subprocess.Popen(
        [sys.executable, "-m", "crowd.run"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, env={**os.environ, "PYTHONPATH": str(BENCH)},
    ) as process:  # fmt: skip
        try:
            made = Crowd(process)
            made.call({"netns": netns, "lab": lab.model_dump(mode="json")})
            yield made
        finally:
            process.kill()


def enrol(lab: Inventory, whom: list[Member], *, anywhere: bool = False) -> None:
    """Enrol members at the first server, see ``Member.enrolment``; raises WgmapError."""
    client = Client(lab.servers[0].admin_socket)
    for body in enrolments(whom, anywhere=anywhere):
        client.post("/v1/imports", body)
