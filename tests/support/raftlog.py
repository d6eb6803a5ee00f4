"""Replicated logs on loopback, in one process."""

import asyncio
import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgpack

from wgmap_cluster.raft.interface import LogError, Member, Role
from wgmap_cluster.raft.log import RaftLog
from wgmap_cluster.raft.settings import Settings


class ListMachine:
    """Keeps every command; apply returns how many there are."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []
        self.indices: list[int] = []

    def apply(self, index: int, command: bytes) -> object:
        if command == b"raise":
            raise ValueError(command)
        self.commands.append(command)
        self.indices.append(index)
        return len(self.commands)

    def snapshot(self) -> Iterable[bytes]:
        rows = list(zip(self.indices, self.commands, strict=True))
        return (msgpack.packb(rows[start : start + 50]) for start in range(0, len(rows), 50))

    def restore(self, pieces: Iterator[bytes]) -> None:
        rows = [row for piece in pieces for row in msgpack.unpackb(piece)]
        self.indices = [index for index, _ in rows]
        self.commands = [command for _, command in rows]


def free_ports(count: int) -> list[int]:
    """Return loopback ports that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    for sock in sockets:
        sock.bind(("127.0.0.1", 0))
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def loopback_members(count: int) -> tuple[Member, ...]:
    """Return members ms1, ms2, ... on loopback."""
    ports = free_ports(count)
    return tuple(Member(f"ms{i + 1}", f"127.0.0.1:{port}") for i, port in enumerate(ports))


async def eventually(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait until a condition holds; fails after the deadline."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  # conditions of any kind
            await asyncio.sleep(0.01)


class Cluster:
    """Servers on loopback; ``machines`` and ``logs`` by name."""

    def __init__(self, base: Path, count: int, settings: Settings | None = None) -> None:
        self.base, self.settings = base, settings
        self.members = loopback_members(count)
        self.logs: dict[str, RaftLog] = {}
        self.machines: dict[str, ListMachine] = {}
        self.failures: dict[str, LogError] = {}

    async def start(self, *names: str) -> None:
        for name in names or [member.name for member in self.members]:
            await self._start(name)

    async def _start(self, name: str) -> None:
        state_dir = self.base / name
        state_dir.mkdir(exist_ok=True)
        machine = self.machines[name] = ListMachine()
        log = RaftLog(
            name, self.members, state_dir, machine, settings=self.settings,
            on_fatal=lambda error: self.failures.update({name: error}),
        )  # fmt: skip
        await log.start()
        self.logs[name] = log

    async def stop(self, *names: str) -> None:
        for name in names or list(self.logs):
            await self.logs.pop(name).stop()

    async def leader(self) -> RaftLog:
        """Wait for a leader that all running servers follow."""

        def names() -> set[str | None]:
            return {log.status().leader for log in self.logs.values()}

        await eventually(lambda: len(names()) == 1 and None not in names())
        (name,) = names()
        return self.logs[name or ""]

    def follower(self) -> RaftLog:
        """Return some follower."""
        return next(log for log in self.logs.values() if log.status().role is Role.FOLLOWER)

    async def settled(self) -> None:
        """Wait until all running servers applied the same."""

        def applied() -> set[int]:
            return {log.status().applied for log in self.logs.values()}

        def last() -> int:
            return max(log.status().last for log in self.logs.values())

        await eventually(lambda: applied() == {last()})
