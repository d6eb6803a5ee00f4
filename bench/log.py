"""The replicated log beside the stock library: proposals a second and how long one takes.

Three servers on loopback, 200-byte commands, state on the disk of the temporary directory (set
TMPDIR to choose). Each server is a process of its own. The two take turns, a new cluster each
time, so that what the machine does besides meets both; prints the medians as a Markdown table.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import results
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

CASES = (("leader", 1), ("leader", 64), ("leader", 1024), ("follower", 1), ("follower", 64))
FIGURES = ("rate", "p50", "p99", "cpu", "lost")
LOST_S = 5.0  # a call without an end for so long; the stock library may never end one


async def measure(
    one: Callable[[], Awaitable[bool]], outstanding: int, seconds: float
) -> dict[str, float]:
    """Keep ``outstanding`` calls going; return the rate, two percentiles in ms, and processor time.

    The last is of this process, its clients included, in microseconds a call: other work on the
    machine changes it little, unlike the rate.
    """
    taken: list[float] = []
    end, processor = time.monotonic() + seconds, time.process_time()

    async def worker() -> None:
        while time.monotonic() < end:
            begun = time.monotonic()
            if await one():
                taken.append(time.monotonic() - begun)

    workers = [asyncio.create_task(worker()) for _ in range(outstanding)]
    lost = float(await _cancelled(workers, seconds + LOST_S))
    taken.sort()
    if not taken:
        return {"rate": 0.0, "p50": 0.0, "p99": 0.0, "cpu": 0.0, "lost": lost}
    p50, p99 = taken[len(taken) // 2], taken[int(len(taken) * 0.99)]
    cpu = (time.process_time() - processor) / len(taken) * 1e6
    rate = len(taken) / seconds
    return {"rate": rate, "p50": p50 * 1000, "p99": p99 * 1000, "cpu": cpu, "lost": lost}


async def _cancelled(workers: list[asyncio.Task[None]], after_s: float) -> int:
    """Wait for workers, at most so long; return how many had to be cancelled."""
    done, waiting = await asyncio.wait(workers, timeout=after_s)
    for worker in waiting:
        worker.cancel()
    await asyncio.gather(*done)  # raises what one of them raised
    return len(waiting)


class Hardened:
    """One server of ours."""

    def __init__(self, number: int, addresses: list[str], directory: Path) -> None:
        from support.raftlog import ListMachine  # noqa: PLC0415  # it replaces parts of stock
        from wgmap_cluster.raft.interface import Member, Outcome  # noqa: PLC0415
        from wgmap_cluster.raft.log import RaftLog  # noqa: PLC0415

        self._applied = Outcome.APPLIED
        members = [Member(f"ms{i}", address) for i, address in enumerate(addresses)]
        self._log = RaftLog(f"ms{number}", members, directory, ListMachine())

    async def start(self) -> None:
        await self._log.start()

    def role(self) -> str | None:
        status = self._log.status()
        return None if status.leader is None else status.role.value

    async def write(self) -> bool:
        return (await self._log.propose(b"x" * 200, 10.0)).outcome is self._applied

    async def read(self) -> bool:
        return await self._log.read_barrier(10.0) is not None


class Stock:
    """One server of the library, with its default settings, in the way its users drive it."""

    def __init__(self, number: int, addresses: list[str], directory: Path) -> None:
        from pysyncobj import SyncObj, SyncObjConf, replicated  # noqa: PLC0415

        class Replicated(SyncObj):  # type: ignore[misc]
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)
                self.count = 0

            @replicated  # type: ignore[untyped-decorator]
            def put(self, command: bytes) -> None:  # noqa: ARG002
                self.count += 1

        path = str(directory / "stock")
        conf = SyncObjConf(journalFile=path + ".journal", fullDumpFile=path + ".dump")
        own = addresses[number]
        self._node = Replicated(own, [a for a in addresses if a != own], conf)
        self._own = own

    async def start(self) -> None:
        pass

    def role(self) -> str | None:
        leader = self._node._getLeader()  # noqa: SLF001  # there is no other way
        if leader is None or not self._node.isReady():
            return None
        return "leader" if leader.address == self._own else "follower"

    async def write(self) -> bool:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()

        def done(_result: object, error: int) -> None:
            loop.call_soon_threadsafe(future.set_result, error == 0)

        self._node.put(b"x" * 200, callback=done)
        return await future

    async def read(self) -> bool:
        return await self.write()  # its only linearizable read is a write


async def serve(kind: str, number: int, addresses: list[str], directory: Path) -> None:
    """Answer one JSON line with another, for ever."""
    server = (Hardened if kind == "hardened" else Stock)(number, addresses, directory)
    await server.start()
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        request = json.loads(line)
        if request["op"] == "role":
            reply: Any = server.role()
        else:
            one = server.write if request["op"] == "write" else server.read
            reply = await measure(one, request["outstanding"], request["seconds"])
        print(json.dumps(reply), flush=True)
    os._exit(0)


class Process:
    """A server process and its pipe."""

    def __init__(self, kind: str, number: int, addresses: list[str], base: Path) -> None:
        directory = base / f"{kind}{number}"
        directory.mkdir()
        arguments = ["--serve", kind, str(number), json.dumps(addresses), str(directory)]
        self._process = subprocess.Popen(
            [sys.executable, __file__, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def call(self, **request: object) -> Any:
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def stop(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


Row = tuple[str, str, str, int]  # kind, what, on, outstanding
Rounds = list[dict[Row, dict[str, float]]]


def bench(kind: str, seconds: float, base: Path) -> dict[Row, dict[str, float]]:
    """Start three servers of one kind and measure each case once."""
    from support.raftlog import free_ports  # noqa: PLC0415

    addresses = [f"127.0.0.1:{port}" for port in free_ports(3)]
    processes = [Process(kind, number, addresses, base) for number in range(3)]
    rows = {}
    try:
        roles: list[str | None] = [None]
        end = time.monotonic() + 30
        while (None in roles or "leader" not in roles) and time.monotonic() < end:
            roles = [process.call(op="role") for process in processes]
            time.sleep(0.1)
        for op in ("write", "read"):
            for role, outstanding in CASES:
                process = processes[roles.index(role)]
                row = process.call(op=op, outstanding=outstanding, seconds=seconds)
                rows[kind, op, role, outstanding] = row
    finally:
        for process in processes:
            process.stop()
    return rows


def table(rounds: Rounds) -> str:
    """Write the medians of all rounds, and between which rates they were."""
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    lines = [
        f"{len(rounds)} rounds; load average {load} on {os.cpu_count()} processors, ours included.",
        "",
        "| log | what | on | outstanding | rate/s | (of) | p50 ms | p99 ms | processor us | lost |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rounds[0]:
        rates = sorted(each[row]["rate"] for each in rounds)
        middle = {name: statistics.median(each[row][name] for each in rounds) for name in FIGURES}
        figures = f"{middle['rate']:,.0f} | {rates[0]:,.0f} to {rates[-1]:,.0f}"
        figures += f" | {middle['p50']:.2f} | {middle['p99']:.1f} | {middle['cpu']:.1f}"
        figures += f" | {sum(each[row]['lost'] for each in rounds):.0f}"
        lines.append(f"| {' | '.join(map(str, row))} | {figures} |")
    return "\n".join(lines)


def write_csv(path: Path, rounds: Rounds) -> None:
    """Write one line for each row of each round."""
    lines = (
        [*row, *(f"{figures[name]:.6g}" for name in FIGURES)]
        for each in rounds
        for row, figures in each.items()
    )
    results.write_rows(path, ["log", "what", "on", "outstanding", *FIGURES], lines)


def draw(path: Path, rounds: Rounds) -> None:
    """Write the median rates over what is outstanding as PNG."""
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    for axes, what in zip(figure.subplots(1, 2), ("write", "read"), strict=True):
        for kind, role in dict.fromkeys((row[0], row[2]) for row in rounds[0]):
            rows = sorted(
                (row for row in rounds[0] if (row[0], row[1], row[2]) == (kind, what, role)),
                key=lambda row: row[3],
            )
            rates = [statistics.median(each[row]["rate"] for each in rounds) for row in rows]
            style = "o-" if role == "leader" else "s--"
            axes.plot([row[3] for row in rows], rates, style, label=f"{kind}, {role}")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("outstanding")
        axes.set_title(f"{what}s a second", fontsize="medium")
        axes.grid(visible=True, which="both", alpha=0.2)
        axes.legend()
    figure.savefig(path, dpi=100)


def main() -> None:
    """Run both kinds."""
    parser = results.parser(__doc__, "log")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each row")
    parser.add_argument("--rounds", type=int, default=5, help="of which the medians are shown")
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        kind, number, addresses, directory = options.serve
        asyncio.run(serve(kind, int(number), json.loads(addresses), Path(directory)))
        return
    rounds: Rounds = []
    for _ in range(options.rounds):
        rounds.append({})
        for kind in ("hardened", "stock"):
            with tempfile.TemporaryDirectory(prefix="wgmap-bench-") as base:
                rounds[-1] |= bench(kind, options.seconds, Path(base))
    results.publish(options, table(rounds), rounds, write_csv, draw)


if __name__ == "__main__":
    main()
