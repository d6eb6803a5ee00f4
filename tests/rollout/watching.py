"""What users of the network notice while a playbook works: a flow between agents, and lookups.

Both run in a process of their own: the playbooks take the processor, and a measurement must not
wait for them.
"""

import asyncio
import ipaddress
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from wgmap.clock import now
from wgmap.errors import UnavailableError, WgmapError
from wgmap_agent.runner.statussocket import request
from wgmap_chaos.flow import Flow
from wgmap_chaos.priority import favour

END_S = 30.0
LOOKUP_PAUSE_S = 0.02


@dataclass
class Watched:
    """What became of a flow of 100 packets a second, and of lookups one after another."""

    sent: int = 0
    lost: int = 0
    longest_gap_s: float = 0.0
    asked: int = 0
    failed: Counter[str] = field(default_factory=Counter)  # by what the agent said
    slowest_s: float = 0.0
    away: int = 0  # asked while the asking agent itself was not there
    not_fresh: int = 0

    @property
    def unhurt(self) -> bool:
        """Whether nobody noticed anything: every packet came, every lookup was answered."""
        return self.sent > 0 and not self.lost and self.asked > self.away and not self.failed


Watching: TypeAlias = AbstractContextManager[Watched]


@contextmanager
def watching(source: str, target: str, eid: str, socket: Path) -> Iterator[Watched]:
    """Watch a flow between two namespaces and lookups through an agent's socket.

    What is yielded is filled in when the block ends.
    """
    watched = Watched()
    command = [sys.executable, "-m", "rollout.watching", source, target, eid, str(socket)]
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "started\n"
            yield watched
            out, _ = process.communicate("", timeout=END_S)
            found = json.loads(out)
            found["failed"] = Counter(found["failed"])
            watched.__dict__.update(found)
        finally:
            process.kill()


async def _watch(source: str, target: str, eid: str, socket: Path) -> Watched:
    watched, ended = Watched(), asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, ended.set)
    async with Flow(source, target, ipaddress.ip_address(eid)) as flow:
        lookups = asyncio.create_task(_look_up(socket, eid, watched))
        sys.stdout.write("started\n")
        sys.stdout.flush()
        await ended.wait()
        lookups.cancel()
        with suppress(asyncio.CancelledError):
            await lookups
    record = flow.record
    watched.sent, watched.lost = len(record.sent), record.lost
    watched.longest_gap_s = record.longest_gap_s
    return watched


async def _look_up(socket: Path, eid: str, watched: Watched) -> None:
    while True:
        watched.asked += 1
        asked_at = now()
        try:
            answer = await asyncio.to_thread(request, socket, {"op": "resolve", "eid": eid})
        except UnavailableError:
            watched.away += 1
        except WgmapError as error:  # what the agent said: no server answered, hedged or not
            watched.failed[str(error)] += 1
        else:
            watched.failed.update([] if answer["found"] else ["not found"])
            watched.not_fresh += not answer["fresh"]
            watched.slowest_s = max(watched.slowest_s, now() - asked_at)
        await asyncio.sleep(LOOKUP_PAUSE_S)


if __name__ == "__main__":
    favour([os.getpid()])
    source, target, eid, socket = sys.argv[1:]
    found = asyncio.run(_watch(source, target, eid, Path(socket)))
    sys.stdout.write(json.dumps(vars(found)))
