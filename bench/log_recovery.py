"""How the replicated log comes back: after a leader's death, a restart, a lost disk.

Three server processes on loopback with state on the disk of the temporary directory. Prints what
``docs/evaluation/replication.md`` shows: time from the kill of a leader to the first commit
(median of the runs), then, with a state of many entries, the time from start to leader, the time
to install it on a server with an empty disk, and the longest pause of the leader meanwhile.
"""

import argparse
import asyncio
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
COMMAND = b"x" * 200
TICK_S = 0.005


class Lag:
    """The longest time for which the loop did nothing else."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def run(self) -> None:
        while True:
            begun = time.monotonic()
            await asyncio.sleep(TICK_S)
            self.longest = max(self.longest, time.monotonic() - begun - TICK_S)


async def serve(name: str, members: list[list[str]], directory: Path) -> None:
    """Answer one JSON line with another until killed."""
    from support.raftlog import ListMachine  # noqa: PLC0415
    from wgmap_cluster.raft.interface import Member, Outcome  # noqa: PLC0415
    from wgmap_cluster.raft.log import RaftLog  # noqa: PLC0415

    machine = ListMachine()
    log = RaftLog(name, [Member(each, at) for each, at in members], directory, machine)
    await log.start()
    lag = Lag()
    task = asyncio.create_task(lag.run())
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        reply: Any = None
        if json.loads(line) == "write":
            reply = (await log.propose(COMMAND, 5.0)).outcome is Outcome.APPLIED
        else:
            status = log.status()
            used = resource.getrusage(resource.RUSAGE_SELF)
            spent = used.ru_utime + used.ru_stime
            reply = [status.leader, status.applied, len(machine.commands), lag.longest]
            reply += [used.ru_maxrss // 1024, spent]
            lag.longest = 0.0
        print(json.dumps(reply), flush=True)
    task.cancel()
    os._exit(0)


class Process:
    """A server process and its pipe."""

    def __init__(self, name: str, members: list[list[str]], base: Path) -> None:
        self.name, self._members, self.directory = name, members, base / name
        self.directory.mkdir(exist_ok=True)

    def start(self) -> None:
        arguments = ["--serve", self.name, json.dumps(self._members), str(self.directory)]
        self._process = subprocess.Popen(
            [sys.executable, __file__, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def call(self, what: str) -> Any:
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


def await_leader(processes: list[Process]) -> str:
    """Wait until all of them follow one leader."""
    while True:
        names = {process.call("look")[0] for process in processes}
        if len(names) == 1 and None not in names:
            return str(names.pop())
        time.sleep(0.01)


def failover(processes: list[Process], runs: int) -> list[float]:
    """Kill the leader so many times; return the seconds to the next commit."""
    taken = []
    for _ in range(runs):
        leader = await_leader(processes)
        victim = next(process for process in processes if process.name == leader)
        rest = [process for process in processes if process is not victim]
        rest[0].call("write")
        begun = time.monotonic()
        victim.kill()
        while not rest[0].call("write"):
            pass
        taken.append(time.monotonic() - begun)
        victim.start()
    return taken


def fill(directories: list[Path], members: list[list[str]], entries: int) -> None:
    """Write a state of so many entries, as a snapshot with an empty log behind it."""
    from support.raftlog import ListMachine  # noqa: PLC0415
    from wgmap_cluster.raft.disk import RealDisk  # noqa: PLC0415
    from wgmap_cluster.raft.interface import Member  # noqa: PLC0415
    from wgmap_cluster.raft.node import SNAPSHOT_NAME, WAL_NAME  # noqa: PLC0415
    from wgmap_cluster.raft.snapshot import SnapshotMeta, SnapshotStore, ThreadJob  # noqa: PLC0415
    from wgmap_cluster.raft.wal import WriteAheadLog  # noqa: PLC0415

    machine = ListMachine()
    machine.commands = [COMMAND] * entries
    machine.indices = list(range(1, entries + 1))
    for directory in directories:
        store = SnapshotStore(RealDisk(), directory / SNAPSHOT_NAME, ThreadJob)
        meta = SnapshotMeta(entries + 2, 1, tuple(Member(each, at) for each, at in members))
        begun = time.monotonic()
        store.save(meta, machine.snapshot())
        while not store.poll():
            time.sleep(0.01)
        print(f"| snapshot written | {time.monotonic() - begun:.1f} s |", flush=True)
        wal = WriteAheadLog(RealDisk(), directory / WAL_NAME)
        wal.set_term(1, None)
        wal.reset(entries + 2, 1)
        wal.close()


def recovery(processes: list[Process], members: list[list[str]], entries: int) -> None:
    """Measure start and install."""
    *full, empty = processes
    fill([process.directory for process in full], members, entries)
    begun = time.monotonic()
    for process in full:
        process.start()
    leader = next(p for p in full if p.name == await_leader(full))
    took = time.monotonic() - begun
    before = leader.call("look")[5]
    print(f"| two servers started, to a leader | {took:.1f} s, processor {before:.1f} s |")
    begun = time.monotonic()
    empty.start()
    longest = 0.0
    while empty.call("look")[2] < entries:
        longest = max(longest, leader.call("look")[3])
        time.sleep(0.05)
    took = time.monotonic() - begun
    *_, lag, memory, spent = leader.call("look")
    *_, new_memory, new_spent = empty.call("look")
    processor = f"processor {spent - before:.1f} s on the leader, {new_spent:.1f} s on the new one"
    print(f"| installed on an empty server | {took:.1f} s, {processor} |")
    print(f"| longest pause of the leader meanwhile | {max(longest, lag):.2f} s |")
    print(f"| memory of the leader, of the new one | {memory}, {new_memory} MiB |")


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=12)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        name, packed, directory = options.serve
        asyncio.run(serve(name, json.loads(packed), Path(directory)))
        return
    from support.raftlog import loopback_members  # noqa: PLC0415

    for part in ("failover", "recovery"):
        with tempfile.TemporaryDirectory(prefix="wgmap-bench-") as base:
            members = [[member.name, member.address] for member in loopback_members(3)]
            processes = [Process(name, members, Path(base)) for name, _ in members]
            try:
                if part == "failover" and options.runs:
                    for process in processes:
                        process.start()
                    taken = failover(processes, options.runs)
                    text = f"median {statistics.median(taken):.2f}, longest {max(taken):.2f} s"
                    print(f"| leader killed to first commit, {len(taken)} runs | {text} |")
                elif part == "recovery" and options.entries:
                    recovery(processes, members, options.entries)
            finally:
                for process in processes:
                    if hasattr(process, "_process"):
                        process.kill()


if __name__ == "__main__":
    main()
