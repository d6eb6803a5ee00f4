"""A replicated log of one server in memory, for tests of what stands above the log."""

import asyncio
from collections.abc import Awaitable, Callable

from wgmap_cluster.raft.interface import (
    MAX_COMMAND_BYTES,
    LogStatus,
    Member,
    Outcome,
    Proposal,
    RefusedError,
    Role,
    StateMachine,
)


class MemoryLog:
    """Commits at once; ``quorum`` False stands for a server that is cut off from the others.

    ``gate`` holds proposals back while it is not set: they are neither applied nor refused yet.
    """

    def __init__(self, machine: StateMachine) -> None:
        self.machine = machine
        self.commands: list[bytes] = []
        self.quorum = True
        self.barriers = 0  # that were asked for
        # Leaders that die with a proposal each; True: it was committed all the same.
        self.deaths: list[bool] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Event()  # something was proposed
        self.note = b""
        self.restored: list[Callable[[], None]] = []
        self.servers = {"ms1": Member("ms1", "[fd00::1]:4343")}
        self.leads = "ms1"
        self.neighbours: dict[str, Callable[[bytes], Awaitable[bytes]]] = {}

    async def start(self) -> None:
        for index, command in enumerate(self.commands, 1):
            self.machine.apply(index, command)

    async def stop(self) -> None:
        self.quorum = False

    async def propose(self, command: bytes, deadline_s: float = 1.5) -> Proposal:
        if len(command) > MAX_COMMAND_BYTES:
            raise ValueError("too large")
        self.asked.set()
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(deadline_s):
                await self.gate.wait()
        except TimeoutError:
            return Proposal(Outcome.UNKNOWN, reason="no quorum in time")
        if not self.quorum:
            return Proposal(Outcome.NOT_APPLIED, reason="no leader")
        committed = self.deaths.pop(0) if self.deaths else None
        if committed is False:
            return Proposal(Outcome.UNKNOWN, reason="lost the leader")
        self.commands.append(command)
        index = len(self.commands)
        result = self.machine.apply(index, command)
        if committed:
            return Proposal(Outcome.UNKNOWN, reason="lost the leader")
        return Proposal(Outcome.APPLIED, index, result)

    async def read_barrier(self, deadline_s: float = 1.0) -> int | None:
        assert deadline_s > 0
        self.barriers += 1
        await asyncio.sleep(0)
        return len(self.commands) if self.quorum else None

    def status(self) -> LogStatus:
        index = len(self.commands)
        role = Role.LEADER if self.quorum else Role.CANDIDATE
        return LogStatus(role, self.leads if self.quorum else None, 1, index, index, index)

    def figures(self) -> dict[str, int]:
        return {"commit": len(self.commands), "term": 1}

    def publish(self, note: bytes) -> None:
        assert len(note) <= 1024
        self.note = note

    async def ask(self, name: str, question: bytes, deadline_s: float = 1.0) -> bytes | None:
        """Have another server answer, as a test said that it would; else nobody does."""
        assert deadline_s > 0
        await asyncio.sleep(0)
        answer = self.neighbours.get(name)
        return None if answer is None else await answer(question)

    def on_asked(self, answer: Callable[[bytes], Awaitable[bytes]]) -> None:
        self.answer = answer

    def on_restored(self, callback: Callable[[], None]) -> None:
        self.restored.append(callback)

    # ClusterControl.
    def members(self) -> tuple[Member, ...]:
        return tuple(self.servers.values())

    async def add_member(self, member: Member, deadline_s: float = 30.0) -> Proposal:
        assert deadline_s > 0
        return self._change({**self.servers, member.name: member})

    async def remove_member(self, name: str, deadline_s: float = 5.0) -> Proposal:
        assert deadline_s > 0
        if name == self.leads:
            return Proposal(Outcome.NOT_APPLIED, reason="it leads; hand over first")
        return self._change({key: value for key, value in self.servers.items() if key != name})

    def _change(self, servers: dict[str, Member]) -> Proposal:
        if not self.quorum:
            return Proposal(Outcome.NOT_APPLIED, reason="no leader")
        self.servers = servers
        return Proposal(Outcome.APPLIED, len(self.commands))

    async def hand_over(self, target: str | None = None, deadline_s: float = 5.0) -> str:
        assert deadline_s > 0
        fit = [name for name in self.servers if name != self.leads and target in (None, name)]
        if not self.quorum or not fit:
            raise RefusedError("nobody fits")
        self.leads = fit[0]
        return self.leads
