"""The scheduler: servers, clients and misfortune, in virtual time."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import msgpack

from support.raftsim.checks import Checks, ViolationError
from support.raftsim.network import Network
from support.simdisk import PowerLossError, SimDisk
from wgmap_cluster.raft import library, messages
from wgmap_cluster.raft.codec import decode
from wgmap_cluster.raft.interface import LogError, Member, Outcome, Proposal, RefusedError
from wgmap_cluster.raft.membership import REGULAR, Change
from wgmap_cluster.raft.node import WAL_NAME, RaftNode
from wgmap_cluster.raft.settings import Settings
from wgmap_cluster.raft.snapshot import Job
from wgmap_cluster.raft.wal import LogImage

SETTINGS = Settings(
    snapshot_entries=30,
    retain_entries=5,
    batch_bytes=300,
    window_bytes=900,
    chunk_bytes=200,
    apply_batch=7,
    install_timeout_s=3.0,
)
DEADLINE_S = 1.5
ANSWER_S = 1.0  # a question is waited for so long
WAL = Path("/") / WAL_NAME


def _answer(name: str, question: bytes) -> bytes:
    return name.encode() + b" answers " + question


class Machine:
    """Keeps its commands with their indices."""

    def __init__(self, name: str, checks: Checks) -> None:
        self._name, self._checks = name, checks
        self.rows: list[tuple[int, bytes]] = []

    def apply(self, index: int, command: bytes) -> object:
        self._checks.on_apply(self._name, index, command)
        self.rows.append((index, command))
        return ("at", index, command)

    def snapshot(self) -> Iterable[bytes]:
        rows = list(self.rows)
        return (msgpack.packb(rows[start : start + 7]) for start in range(0, len(rows), 7))

    def restore(self, pieces: Iterator[bytes]) -> None:
        self.rows = [tuple(row) for piece in pieces for row in msgpack.unpackb(piece)]
        self._checks.on_restore(self._name, self.rows)


class _Job:
    """A snapshot that takes a while and is written at its end."""

    def __init__(self, world: "World", work: Callable[[], None]) -> None:
        self._world, self._work = world, work
        self._due = world.time + world.rng.uniform(0, 0.3)
        self._done = False

    def done(self) -> bool:
        if not self._done and self._world.time >= self._due:
            self._work()
            self._done = True
        return self._done


@dataclass
class Server:
    """One server: its disk stays, its process comes and goes."""

    name: str
    disk: SimDisk = field(default_factory=SimDisk)
    node: RaftNode | None = None
    back_at: float = 0.0
    paused_until: float = 0.0
    busy_since: float = 0.0  # up and not paused since
    deadlines: dict[bytes, float] = field(default_factory=dict)
    asked: list[tuple[float, int]] = field(default_factory=list)  # until when, number
    to_answer: list[tuple[float, str, messages.Ask]] = field(default_factory=list)  # from when

    def durable(self) -> LogImage | None:
        """Return what its log is after a loss of power now, None if it has none."""
        inode = self.disk.files.get(WAL)
        if inode is None or not inode.synced:
            return None
        return LogImage.parse(WAL, bytes(inode.data[: inode.synced]))


class _Wire:
    def __init__(self, world: "World", name: str) -> None:
        self._world, self._network, self._name = world, world.network, name

    def send(self, name: str, frame: bytes) -> None:
        self._world.require_durable(self._name, decode(frame))
        self._network.send(self._name, name, frame)

    def flush(self) -> None:
        pass

    def connected(self, name: str) -> bool:
        return self._network.connected(self._name, name)

    def backlog(self, name: str) -> int:
        return self._network.backlog(self._name, name)

    def drop(self, name: str, reason: str) -> None:
        raise ViolationError(f"{self._name} does not understand {name}: {reason}")

    def set_members(self, members: tuple[Member, ...]) -> None:
        self._network.set_members(self._name, members)


class World:
    """A cluster of ``count`` servers; everything follows from ``seed``.

    With ``asking`` they ask one another questions beside the log, too.
    """

    def __init__(self, seed: int, count: int = 3, *, asking: bool = False) -> None:
        self.asking = asking
        self.rng = Random(seed)
        self.time = 1000.0
        library.use_clock(lambda: self.time)
        self.checks = Checks()
        names = [f"ms{number + 1}" for number in range(count)]
        self.members = tuple(Member(name, f"[fd00::{name[2:]}]:4343") for name in names)
        self.servers = {name: Server(name) for name in names}
        self.network = Network(self.rng, names, self._changed, self._deliver, unruly=seed % 2 == 1)
        self.network.seed = seed
        self.sequence = 0
        self._proven: dict[str, int] = {}  # per server: the term that it was seen to lead by right
        for server in self.servers.values():
            self._start(server)

    def _background(self, work: Callable[[], None]) -> Job:
        return _Job(self, work)

    def _start(self, server: Server) -> None:
        server.busy_since = self.time
        server.deadlines.clear()
        server.asked.clear()
        try:
            server.node = RaftNode(
                server.name, self.members, Path("/"), Machine(server.name, self.checks),
                _Wire(self, server.name), disk=server.disk, settings=SETTINGS,
                rng=Random(self.rng.random()), background=self._background,
            )  # fmt: skip
            server.node.questions.asked = lambda name, ask: self._asked(server, name, ask)
        except PowerLossError:
            self._crash(server)

    def up(self) -> list[Server]:
        return [server for server in self.servers.values() if server.node is not None]

    def active(self) -> list[Server]:
        return [server for server in self.up() if server.paused_until <= self.time]

    # What is on disk.
    def require_durable(self, name: str, message: messages.Message) -> None:
        """Nothing may leave that is not on disk, but a leader's entries in a term that is.

        Its own vote for itself in that term must be, or a later term: after a crash it must not
        lead that one again.
        """
        server = self.servers[name]
        if server.node is None:
            return
        if not isinstance(message, messages.AppendEntries):
            text = f"{name} sends {type(message).__name__} before it has synced"
            self.checks.require(not server.node.wal._buffer, text)
        elif self._proven.get(name) != message.term:
            image = server.durable()
            led = None if image is None else (image.term, image.vote)
            text = f"{name} leads term {message.term}, on its disk is {led}"
            right = led is not None and (led[0] > message.term or led == (message.term, name))
            self.checks.require(right, text)
            self._proven[name] = message.term

    def _require_on_quorum(self, node: RaftNode, voters: set[str]) -> None:
        """What a leader commits is on the disks of a quorum, itself counted as any other.

        ``voters`` were those before the step; in it the set may have changed, after the count.
        """
        index, term = node.commit, node.wal.term_at(node.commit)
        held = {name for name in self.servers if self._holds(name, index, term)}
        sets = [names | {node.name} for names in (voters, node.voters())]
        text = f"{node.name} commits {index} of term {term}, which only {sorted(held)} have on disk"
        self.checks.require(any(len(held & names) * 2 > len(names) for names in sets), text)

    def _holds(self, name: str, index: int, term: int | None) -> bool:
        image = self.servers[name].durable()
        if image is None or not image.entries or index > image.last:
            return False
        return index < image.first or image.entries[index - image.first][2] == term

    # From the network.
    def _changed(self, server: str, other: str) -> None:
        node = self.servers[server].node
        if node is not None:
            node.connection_changed(other)

    def _deliver(self, server: str, sender: str, data: bytes) -> None:
        self.checks.on_frame(sender, server, data)
        node = self.servers[server].node
        if node is not None:
            node.receive(sender, data)

    # Misfortune.
    def _crash(self, server: Server) -> None:
        self.checks.count("crashes")
        server.node = None
        self._proven.pop(server.name, None)
        server.to_answer.clear()
        server.back_at = self.time + self.rng.choice((0.0, self.rng.uniform(0.05, 1.5)))
        server.disk.crash(self.rng)
        self.network.crash(server.name)

    def _misfortune(self) -> None:
        rng, dice = self.rng, self.rng.random()
        victim = self._victim()
        if dice < 0.004 and victim.node is not None:
            self._crash(victim)
        elif dice < 0.008:
            victim.disk.power_lost_in = rng.randint(0, 6)
        elif dice < 0.011:
            self._pause(victim)
        elif dice < 0.017:
            self._cut(victim)
        elif dice < 0.026:
            self.network.cuts.clear()
        elif dice < 0.0268:
            for server in self.up():
                self._crash(server)

    def _pause(self, victim: Server) -> None:
        victim.paused_until = victim.busy_since = self.time + self.rng.uniform(0.2, 3.0)

    def _victim(self) -> Server:
        leading = [s for s in self.up() if s.node is not None and s.node.leading]
        if leading and self.rng.random() < 0.5:
            return self.rng.choice(leading)
        return self.rng.choice(list(self.servers.values()))

    def _cut(self, victim: Server) -> None:
        """Cut a server off: from some or all, in one direction or both."""
        directions = self.rng.choice((1, 2, 3))
        for other in self.servers:
            if other != victim.name and self.rng.random() < 0.7:
                if directions & 1:
                    self.network.cuts.add((victim.name, other))
                if directions & 2:
                    self.network.cuts.add((other, victim.name))

    # Operators.
    def _operator(self) -> None:
        """Hand over, remove a server, add it again."""
        dice, active = self.rng.random(), self.active()
        leading = [s.node for s in active if s.node is not None and s.node.leading]
        if dice < 0.003 and leading:
            with contextlib.suppress(RefusedError):
                leading[0].hand_over(None)
                self.checks.count("transfers")
        elif dice < 0.008 and leading and len(self.servers) > 2:
            self._change(leading[0], self.rng.choice(self.members))

    def _change(self, leader: RaftNode, member: Member) -> None:
        """Remove a server that is there, add one that is not."""
        members = leader.membership.members
        if member in members and len(members) <= len(self.servers) - 1:
            return  # one less than all is the least
        change = Change(add=member not in members, member=member)

        def done(proposal: Proposal) -> None:
            if proposal.outcome is Outcome.APPLIED:
                self.checks.count("changes")

        leader.proposals.add(change.pack(), self.time + DEADLINE_S, done)

    def _all_members(self) -> bool:
        """Add whoever is missing; True once nobody is, as all servers know."""
        for node in self.nodes():
            missing = [m for m in self.members if m not in node.membership.members]
            if node.leading and node.commit >= node.membership.index:
                if not missing:
                    return all(len(n.membership.members) == len(self.servers) for n in self.nodes())
                if self.rng.random() < 0.1:
                    self._change(node, missing[0])
        return False

    # Clients.
    def _client(self) -> None:
        active = self.active()
        if not active:
            return
        if self.rng.random() < 0.3:
            for _ in range(self.rng.choice((1, 1, 2, 5))):
                self.propose(self.rng.choice(active))
        if self.rng.random() < 0.15:
            self.read(self.rng.choice(active))
        if self.asking and self.rng.random() < 0.2:
            self.ask(self.rng.choice(active), self.rng.choice(list(self.servers)))

    def propose(self, server: Server) -> list[Proposal]:
        """Propose a command of its own kind; the list gets its outcome."""
        node, result = server.node, list[Proposal]()
        if node is None:
            return result
        self.sequence += 1
        command = b"%d:%s" % (self.sequence, server.name.encode() * 5)
        server.deadlines[command] = self.time + DEADLINE_S

        def done(proposal: Proposal) -> None:
            server.deadlines.pop(command, None)
            if server.node is node:
                self.checks.on_outcome(command, proposal)
                result.append(proposal)

        node.proposals.add(REGULAR + command, self.time + DEADLINE_S, done)
        return result

    def read(self, server: Server) -> None:
        node, floor = server.node, self.checks.last_acknowledged
        if node is not None:
            node.reads.add(self.time + 1.0, lambda at: self.checks.on_read(node, at, floor))

    def ask(self, server: Server, other: str) -> None:
        """Ask another server something of its own kind; the answer is to be to that."""
        node = server.node
        if node is None or other == server.name:
            return
        self.sequence += 1
        question = b"%s asks %d" % (server.name.encode(), self.sequence)

        def told(answer: bytes) -> None:
            wanted = _answer(other, question)
            self.checks.require(answer == wanted, f"{question!r} was answered {answer!r}")
            self.checks.require(server.node is node, f"{question!r}: who asked is dead")
            self.checks.count("told")

        number = node.questions.ask(other, question, told)
        if number is not None:
            server.asked.append((self.time + ANSWER_S, number))

    def _asked(self, server: Server, name: str, ask: messages.Ask) -> None:
        """Answer a little later, for one has to look; who asked may have begun anew by then."""
        server.to_answer.append((self.time + self.rng.choice((0.0, 0.1, 1.0)), name, ask))

    def _ask_on(self, server: Server, node: RaftNode) -> None:
        """Answer what is due, and wait no longer for what is not answered."""
        due = [one for one in server.to_answer if one[0] <= self.time]
        server.to_answer = [one for one in server.to_answer if one[0] > self.time]
        for _, name, ask in due:
            node.questions.answer(name, ask.id, _answer(server.name, ask.data))
        for _, number in [one for one in server.asked if one[0] <= self.time]:
            node.questions.forget(number)
        server.asked = [one for one in server.asked if one[0] > self.time]

    # Time.
    def step(self, *, calm: bool = False) -> None:
        self.time += self.rng.uniform(0.002, 0.015)
        for server in self.servers.values():
            if server.node is None and server.back_at <= self.time:
                self._start(server)
        self.network.step(self.time, {server.name for server in self.up()})
        if not calm:
            self._misfortune()
            self._operator()
            self._client()
        order = self.active()
        self.rng.shuffle(order)
        for server in order:
            self._run(server)

    def _run(self, server: Server) -> None:
        if server.node is None:
            return
        self.network.deliver_to(server.name)
        node = server.node
        self._ask_on(server, node)
        before, voters = (node.term, node.commit, node.applied), node.voters()
        try:
            for _ in range(3):
                if not node.tick():
                    break
        except PowerLossError:
            self._crash(server)
            return
        self.checks.on_step(node, before)
        if node.leading and node.commit > before[1]:
            self._require_on_quorum(node, voters)
        self._check_deadlines(server)

    def _check_deadlines(self, server: Server) -> None:
        for command, deadline in server.deadlines.items():
            late = self.time - max(deadline, server.busy_since) > 0.2
            self.checks.require(not late, f"{server.name}: {command!r} has no outcome")

    def run(self, steps: int = 1200) -> None:
        """Run, then heal everything and require that the cluster works; raises ViolationError."""
        for _ in range(steps):
            self.step()
        self.heal()
        self.require_recovery()

    def heal(self) -> None:
        self.network.cuts.clear()
        for server in self.servers.values():
            server.paused_until = 0.0
            server.disk.power_lost_in = None

    def until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Step calmly until a condition holds."""
        end = self.time + seconds
        while not condition():
            self.checks.require(self.time < end, f"not within {seconds} s: {what}")
            self.step(calm=True)

    def nodes(self) -> list[RaftNode]:
        return [server.node for server in self.up() if server.node is not None]

    def require_recovery(self) -> None:
        """All servers come to the same state, which has all that was acknowledged."""
        everyone = len(self.servers)
        over = self.time + DEADLINE_S + 1.0  # what an operator asked for last takes effect or not
        self.until(lambda: self.time >= over, 5, "a calm while")
        self.until(lambda: len(self.nodes()) == everyone, 5, "all servers up")
        self.until(lambda: self._all_members() and self._one_leader(), 50, "a leader of all")
        for server in self.servers.values():
            self._require_progress(server)
        self.until(lambda: len({n.applied for n in self.nodes()}) == 1, 20, "equal states")
        self.checks.logs_match(self.nodes())
        for server in self.servers.values():
            self._require_state(server)

    def _one_leader(self) -> bool:
        leaders = {node.leader for node in self.nodes()}
        return len(leaders) == 1 and None not in leaders

    def _require_progress(self, server: Server) -> None:
        def proposed() -> bool:
            if not attempts or (attempts[-1] and attempts[-1][0].outcome is not Outcome.APPLIED):
                attempts.append(self.propose(server))
            return bool(attempts[-1])

        attempts: list[list[Proposal]] = []
        applied = Outcome.APPLIED
        self.until(
            lambda: proposed() and attempts[-1][0].outcome is applied,
            20, f"a proposal on {server.name}",
        )  # fmt: skip

    def _require_state(self, server: Server) -> None:
        machine = server.node._machine if server.node is not None else None
        rows = dict(machine.rows) if isinstance(machine, Machine) else {}
        for index, command in self.checks.acknowledged.items():
            self.checks.require(rows.get(index) == command, f"{server.name} lost {command!r}")


def simulate(seed: int, count: int = 3, steps: int = 1200, *, asking: bool = False) -> Checks:
    """Run one seed; raises ViolationError, whose text begins with the seed."""
    world = World(seed, count, asking=asking)
    try:
        world.run(steps)
    except (ViolationError, LogError, AssertionError) as error:
        text = f"seed {seed}, {count} servers, at {world.time - 1000:.3f} s: {error}"
        raise ViolationError(text) from error
    return world.checks
