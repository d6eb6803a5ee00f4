"""Servers of the log moved by hand: the test says who ticks and which frames arrive."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random

import msgpack

from support.simdisk import SimDisk
from wgmap_cluster.raft import library
from wgmap_cluster.raft.codec import decode, encode
from wgmap_cluster.raft.interface import Member, Proposal, StateMachine
from wgmap_cluster.raft.membership import REGULAR
from wgmap_cluster.raft.messages import Message
from wgmap_cluster.raft.node import RaftNode
from wgmap_cluster.raft.settings import Settings
from wgmap_cluster.raft.snapshot import Job


class RecordingMachine:
    """Keeps (index, command); a command b"raise" raises."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, bytes]] = []

    def apply(self, index: int, command: bytes) -> object:
        if command.startswith(b"raise"):
            raise KeyError(command)
        self.rows.append((index, command))
        return len(self.rows)

    def snapshot(self) -> Iterable[bytes]:
        return [msgpack.packb(row) for row in self.rows]

    def restore(self, pieces: Iterator[bytes]) -> None:
        self.rows = [tuple(msgpack.unpackb(piece)) for piece in pieces]

    @property
    def commands(self) -> list[bytes]:
        return [command for _, command in self.rows]


class _Job:
    def __init__(self, work: Callable[[], None]) -> None:
        work()

    def done(self) -> bool:
        return True


class RigWire:
    """Frames wait in ``rig.frames`` until the test delivers them."""

    def __init__(self, rig: "Rig", name: str) -> None:
        self._rig, self._name = rig, name
        self.members: tuple[Member, ...] = ()

    def send(self, name: str, frame: bytes) -> None:
        if self.connected(name):
            self._rig.frames[self._name, name].append(frame)

    def flush(self) -> None:
        pass

    def connected(self, name: str) -> bool:
        return frozenset((self._name, name)) in self._rig.links

    def backlog(self, name: str) -> int:  # noqa: ARG002  # nothing ever waits
        return 0

    def drop(self, name: str, reason: str) -> None:
        assert reason
        self._rig.disconnect(self._name, name)

    def set_members(self, members: tuple[Member, ...]) -> None:
        self.members = members


def job(work: Callable[[], None]) -> Job:
    """Run background work at once."""
    return _Job(work)


class Rig:
    """Servers named by the letters of ``names``; all connected, time stands still."""

    def __init__(self, names: str = "abc", settings: Settings | None = None) -> None:
        self.time = 100.0
        library.use_clock(lambda: self.time)
        self.settings = settings or Settings(snapshot_entries=10**9, retain_entries=5)
        self.names = names
        self.members = tuple(Member(n, f"10.0.0.{ord(n) - 96}:4343") for n in names)
        self.links = {frozenset((one, two)) for one in names for two in names if one < two}
        self.frames: dict[tuple[str, str], list[bytes]] = defaultdict(list)
        self.disks = {name: SimDisk() for name in names}
        self.machines: dict[str, RecordingMachine] = {}
        self.nodes: dict[str, RaftNode] = {}
        for name in names:
            self.boot(name)

    def boot(self, name: str, members: tuple[Member, ...] | None = None) -> RaftNode:
        """Start a server from its disk; what it had in memory is gone."""
        machine: StateMachine
        self.machines[name] = machine = RecordingMachine()
        disk = self.disks.setdefault(name, SimDisk())
        disk.incarnation += 1
        self.nodes[name] = RaftNode(
            name, members or self.members, Path("/"), machine, RigWire(self, name), disk=disk,
            settings=self.settings, rng=Random(len(self.nodes)), background=job,
        )  # fmt: skip
        return self.nodes[name]

    def crash(self, name: str) -> RaftNode:
        """Kill a server, losing what was not synced, and start it again."""
        for other in self.names:
            self.disconnect(name, other)
        self.disks[name].crash(Random(1))
        node = self.boot(name)
        for other in self.names:
            if other != name:
                self.connect(name, other)
        return node

    def connect(self, one: str, two: str) -> None:
        self.links.add(frozenset((one, two)))
        for name, other in ((one, two), (two, one)):
            self.nodes[name].connection_changed(other)

    def disconnect(self, one: str, two: str) -> None:
        if frozenset((one, two)) not in self.links:
            return
        self.links.discard(frozenset((one, two)))
        self.frames[one, two].clear()
        self.frames[two, one].clear()
        for name, other in ((one, two), (two, one)):
            self.nodes[name].connection_changed(other)

    def isolate(self, name: str) -> None:
        for other in self.names:
            if other != name:
                self.disconnect(name, other)

    def tick(self, name: str) -> None:
        while self.nodes[name].tick():
            pass

    def deliver(self, sender: str, receiver: str, count: int | None = None) -> int:
        """Let the first ``count`` frames of a link arrive (all of them: None) and be handled."""
        queue = self.frames[sender, receiver]
        taken, self.frames[sender, receiver] = queue[:count], queue[len(queue[:count]) :]
        for frame in taken:
            self.nodes[receiver].receive(sender, frame)
        self.tick(receiver)
        return len(taken)

    def inject(self, sender: str, receiver: str, message: Message) -> None:
        """Let a message arrive that nobody sent."""
        self.nodes[receiver].receive(sender, encode(message))
        self.tick(receiver)

    def sent(self, sender: str, receiver: str) -> list[Message]:
        """Return what waits on a link."""
        return [decode(frame) for frame in self.frames[sender, receiver]]

    def run(self, seconds: float = 0.2, names: str | None = None) -> None:
        """Let time pass for some servers, every frame between them arriving at once."""
        names = names or "".join(self.nodes)
        end = self.time + seconds
        while self.time < end:
            self.time += 0.01
            for name in names:
                self.tick(name)
            for _ in range(3):
                for sender in names:
                    for receiver in names:
                        if sender != receiver:
                            self.deliver(sender, receiver)

    def run_far(self, seconds: float, far: str, one_way_s: float) -> None:
        """Let time pass with one server that far away from all others."""
        flying: list[tuple[float, str, str, bytes]] = []
        end = self.time + seconds
        while self.time < end:
            self.time += 0.01
            for (sender, receiver), queue in self.frames.items():
                due = self.time + (one_way_s if far in (sender, receiver) else 0.0)
                flying += ((due, sender, receiver, frame) for frame in queue)
                queue.clear()
            for _, sender, receiver, frame in (each for each in flying if each[0] <= self.time):
                self.nodes[receiver].receive(sender, frame)
            flying = [each for each in flying if each[0] > self.time]
            for name in self.nodes:
                self.tick(name)

    def elect(self, name: str, names: str | None = None) -> RaftNode:
        """Let ``name`` win an election among ``names``."""
        self.time += 1.0  # every leader is silent long enough
        node = self.nodes[name]
        node.elections._won_question = True
        node.election_now()
        self.tick(name)
        self.run(0.1, names)
        if not node.leading:
            raise AssertionError(f"{name} was not elected")
        return node

    def propose(self, name: str, command: bytes, deadline_s: float = 1.5) -> list[Proposal]:
        """Propose; the list gets the outcome. The server does not tick by itself."""
        result: list[Proposal] = []
        self.nodes[name].proposals.add(REGULAR + command, self.time + deadline_s, result.append)
        return result

    def read(self, name: str, deadline_s: float = 1.0) -> list[int | None]:
        """Ask for a read barrier; the list gets the answer."""
        result: list[int | None] = []
        self.nodes[name].reads.add(self.time + deadline_s, result.append)
        return result
