"""Servers of the log as processes that can be killed, stopped and given a bad disk."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, Self

from support.raftlog import eventually, loopback_members
from wgmap import clock

TESTS = Path(__file__).resolve().parent.parent
LEADER_S = 60.0  # three starts of Python, and disks of a shared machine that stall for seconds


class ServerProcess:
    """One process; ``prefix`` is put before its command (strace)."""

    def __init__(self, name: str, base: Path, members: str, settings: str) -> None:
        self.name, self.state_dir = name, base / name
        self.state_dir.mkdir(exist_ok=True)
        self._arguments = (name, str(self.state_dir), members, settings)
        self._process: asyncio.subprocess.Process | None = None
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reading: asyncio.Task[None] | None = None
        self._last_id = 0

    async def start(self, *prefix: str) -> None:
        command = (*prefix, sys.executable, "-m", "support.raftserver", *self._arguments)
        self._process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE, limit=1 << 24,
            env={**os.environ, "PYTHONPATH": str(TESTS)},
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read(self._process))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None:
            raise AssertionError
        while line := await process.stdout.readline():
            reply = json.loads(line)
            future = self._waiting.pop(reply["id"], None)
            if future is not None and not future.done():
                future.set_result(reply)
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ConnectionError("the process ended"))
        self._waiting.clear()

    @property
    def running(self) -> bool:
        return self._process is not None

    async def call(self, op: str, timeout_s: float = 10.0, **fields: Any) -> dict[str, Any]:
        """Ask the process; raises ConnectionError when it ends, TimeoutError."""
        process = self._process
        if process is None or process.stdin is None or self._reading is None:
            raise ConnectionError(self.name)
        if self._reading.done():
            raise ConnectionError(f"{self.name} has ended")
        self._last_id += 1
        future = asyncio.get_running_loop().create_future()
        self._waiting[self._last_id] = future
        process.stdin.write(json.dumps({"id": self._last_id, "op": op, **fields}).encode() + b"\n")
        return await asyncio.wait_for(future, timeout_s)

    async def tell(self) -> dict[str, Any]:
        """Return its status and figures, or why there are none and its exit code."""
        try:
            return {**await self.call("status", 1.0), **await self.call("figures", 1.0)}
        except (ConnectionError, TimeoutError) as error:
            code = self._process.returncode if self._process is not None else None
            return {"server": self.name, "failed": repr(error), "exit_code": code}

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    async def kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self.wait()

    async def wait(self, timeout_s: float = 20.0) -> tuple[int, str]:
        """Wait for its end; return the exit code and what it said."""
        process = self._process
        if process is None or process.stderr is None or self._reading is None:
            raise AssertionError("not started")
        said = await asyncio.wait_for(process.stderr.read(), timeout_s)
        code = await asyncio.wait_for(process.wait(), timeout_s)
        await self._reading
        if process.stdin is not None:
            process.stdin.close()
        self._process = None
        return code, said.decode()


class ProcessCluster:
    """``count`` processes on loopback, and what they acknowledged."""

    def __init__(self, base: Path, count: int, **settings: object) -> None:
        members = loopback_members(count)
        self.members = members
        packed = json.dumps([[member.name, member.address] for member in members])
        self.servers = [
            ServerProcess(member.name, base, packed, json.dumps(settings)) for member in members
        ]
        self.acknowledged: list[str] = []
        self.sequence = 0

    async def __aenter__(self) -> Self:
        try:
            for server in self.servers:
                await server.start()
            await self.ready()
        except BaseException:
            await self.end()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end()

    async def end(self) -> None:
        """Kill whoever runs."""
        for server in self.servers:
            if server.running:
                await server.kill()

    async def leader(self, timeout_s: float = LEADER_S) -> ServerProcess:
        """Wait until all running servers follow one leader; says what each of them did instead."""
        end = clock.now() + timeout_s
        while True:
            running = [server for server in self.servers if server.running]
            said = [await server.tell() for server in running]
            names = {answer.get("leader") for answer in said}
            if len(names) == 1 and None not in names:
                (name,) = names
                return next(server for server in running if server.name == name)
            if clock.now() > end:
                raise AssertionError(f"no leader for all within {timeout_s} s: {said}")
            await asyncio.sleep(0.05)

    async def ready(self) -> None:
        await self.leader()

    async def write(self, server: ServerProcess) -> str:
        """Propose one command; remembers it if it was acknowledged."""
        self.sequence += 1
        command = f"{self.sequence}:{server.name}"
        try:
            reply = await server.call("propose", command=command)
        except (ConnectionError, TimeoutError):
            return "unknown"
        if reply["outcome"] == "applied":
            self.acknowledged.append(command)
        return str(reply["outcome"])

    async def write_until(self, stop: asyncio.Event, server: ServerProcess) -> None:
        while not stop.is_set():
            if not server.running or await self.write(server) != "applied":
                await asyncio.sleep(0.02)

    async def require_nothing_lost(self) -> None:
        """Every running server has the same commands, all that was acknowledged among them."""
        leader = await self.leader()
        await self.write(leader)
        states: list[list[str]] = []

        async def fetch() -> bool:
            states[:] = [
                (await s.call("dump"))["commands"] for s in self.servers if s.running
            ]  # fmt: skip
            return all(state == states[0] for state in states)

        async with asyncio.timeout(20):
            while not await fetch():  # noqa: ASYNC110  # other processes
                await asyncio.sleep(0.05)
        missing = set(self.acknowledged) - set(states[0])
        if missing:
            raise AssertionError(f"lost: {sorted(missing)[:5]} of {len(self.acknowledged)}")


__all__ = ["ProcessCluster", "ServerProcess", "eventually"]
