"""One cold first contact under a fault, and how long its first reply took."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from wgmap_agent.runner.statussocket import request
from wgmap_chaos.contacts.faults import Fault, Pair
from wgmap_chaos.lab import commands, inventory, removal, topology
from wgmap_chaos.lab.errors import LabError
from wgmap_chaos.lab.inventory import AgentEntry, Inventory
from wgmap_chaos.lab.waiting import Deadline
from wgmap_chaos.losses import losing

LIMIT_S = 1.0  # beside four round trips: what the worst first reply may take
GIVE_UP_S = 12.0
PING_EVERY_S = 0.1
LATER = 5  # answers to later packets: what was not answered before those never is
SETTLE_S = 0.05  # beside four delays: what a contact has led to is over
TAKEN_S = 2.0  # within this a fault must have taken what it is for
REPAIRS = (
    *("peer.kicked", "peer.fallback", "peer.sent_again"),
    *("request.repeated", "peer.came_early"),
)
_REPLY = re.compile(rb"icmp_seq=(\d+) .*time=([\d.]+) ms")


def limit_ms(delay_ms: float, late_ms: float, fault: Fault) -> float:
    """Return what a first reply may take: two losses in one contact may double it."""
    late_ms += fault.answers_late_ms
    return LIMIT_S * (2 if fault.loss_percent else 1) * 1e3 + 8 * delay_ms + late_ms


@dataclass(frozen=True, slots=True)
class Contact:
    """What came of a first contact."""

    reply_ms: tuple[float | None, ...]  # of each side that sent; None: nothing came back
    effective: bool  # whether the fault took all that it is for
    counters: tuple[dict[str, int], dict[str, int]]  # what changed at puller and target
    lost: int  # packets that were sent before the first one that was answered, and never were
    overtaken: int  # and those that were answered behind it

    @property
    def worst_ms(self) -> float:
        """Return the slower first reply, infinite where one never came."""
        return max(float("inf") if one is None else one for one in self.reply_ms)

    def repairs(self) -> str:
        """Say what the agents did about it."""
        found = [
            f"{who} {name.partition('.')[2]} {counters[name]}"
            for who, counters in zip(("puller", "target"), self.counters, strict=True)
            for name in REPAIRS
            if counters.get(name)
        ]
        return ", ".join(found)


class Contacts:
    """Makes first contacts in a running lab."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lab: Inventory = inventory.read(topology.paths(directory).inventory)
        self._settle_s = SETTLE_S

    def set(self, delay_ms: float, late_ms: float = 0.0, loss_percent: float = 0.0) -> None:
        """Set the underlay: delay one way; how late pushes come; loss. Raises LabError.

        Whatever a server sends to the second agent comes late: it is always the target.
        """
        self._settle_s = SETTLE_S + (4 * delay_ms + late_ms) / 1e3
        target = self.lab.agents[1].name
        for server in self.lab.servers:
            commands.divert(self.directory, server.name, target, late_ms)
        commands.set_quality(self.directory, delay_ms, loss_percent)

    def make(self, fault: Fault) -> Contact:
        """Let the first two agents meet for the first time; raises LabError."""
        puller, target = self.lab.agents[:2]
        self._part(puller, target)
        before = [_counters(one) for one in (puller, target)]
        pair = Pair(self.lab, puller, target)
        with losing(*fault.losses(pair)) as losses, self._late_answers(fault, puller):
            sides = [(puller, target), (target, puller)] if fault.both else [(puller, target)]
            with ThreadPoolExecutor(len(sides)) as pool:
                answers = tuple(pool.map(lambda side: first_answer(*side), sides))
            effective = _becomes_true(losses.any if fault.either else losses.complete)
        after = [_counters(one) for one in (puller, target)]
        changes = [
            {
                name: value - old.get(name, 0)
                for name, value in new.items()
                if value != old.get(name)
            }
            for old, new in zip(before, after, strict=True)
        ]
        if any(one is not None and one.after_ms < fault.answers_late_ms for one in answers):
            effective = False  # the puller knew the target before its answer
        found = [one for one in answers if one is not None]
        replies = tuple(None if one is None else one.after_ms for one in answers)
        lost, overtaken = sum(one.lost for one in found), sum(one.overtaken for one in found)
        return Contact(replies, effective, (changes[0], changes[1]), lost, overtaken)

    @contextmanager
    def _late_answers(self, fault: Fault, puller: AgentEntry) -> Iterator[None]:
        """Let what servers send to the puller come late meanwhile; raises LabError."""
        ways = self.lab.servers if fault.answers_late_ms else ()
        try:
            for server in ways:
                commands.divert(self.directory, server.name, puller.name, fault.answers_late_ms)
            yield
        finally:
            for server in ways:
                commands.divert(self.directory, server.name, puller.name, 0.0)
            # What is on its way to the puller tells it of the target: before they are parted again.
            time.sleep(fault.answers_late_ms / 1e3)

    # ------------------------------------------------------------------------ restarts

    def restart_target(self, *, new_key: bool) -> float | None:
        """Restart the target's agent and contact it as soon as it is registered again.

        With ``new_key`` it makes another data key; the puller then has a tunnel to the old one.
        """
        puller, target = self.lab.agents[:2]
        self._part(puller, target)
        if new_key and first_answer_ms(puller, target) is None:
            raise LabError("no tunnel to the old key")
        self._end(target)
        if new_key:
            (target.state_dir / "data.key").unlink()
        self.lab = commands.start_agents(self.directory, [target.name])
        target = self.lab.agents[1]
        Deadline(10.0).wait(lambda: _is_registered(target), lambda: f"{target.name} registered")
        return first_answer_ms(puller, target)

    def _part(self, puller: AgentEntry, target: AgentEntry) -> None:
        """Make strangers of two agents, also where a push of the last contact is on its way.

        Each agent asks a second server for a peer a second after the first, and that pushes too.
        """
        forget(puller, target)
        for agent in (puller, target):
            Deadline(10.0).wait(lambda a=agent: _is_calm(a), lambda: "no question is out")  # type: ignore[misc]
        time.sleep(self._settle_s)
        forget(puller, target)

    def _end(self, agent: AgentEntry) -> None:
        pid = agent.pids["agent"]
        if pid is None:
            raise LabError(f"{agent.name} does not run")
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        Deadline(10.0).wait(lambda: not removal.alive(pid), lambda: f"{agent.name} ends")


def forget(one: AgentEntry, other: AgentEntry) -> None:
    """Make two agents strangers; raises UnavailableError."""
    for agent, peer in ((one, other), (other, one)):
        request(agent.socket, {"op": "forget", "eid": str(peer.eids[0])})


class Reply(NamedTuple):
    """The first answer: how long after the first packet it came, and what was lost before it.

    ``overtaken``: packets that were sent before the one that was answered first, and were answered
    later; ``lost``: those that were not, before LATER more were.
    """

    after_ms: float
    lost: int = 0
    overtaken: int = 0


def first_answer_ms(source: AgentEntry, target: AgentEntry) -> float | None:
    """Send packets like an application that tries again; return when the first reply came (ms).

    None where none came within GIVE_UP_S.
    """
    reply = first_answer(source, target)
    return None if reply is None else reply.after_ms


def first_answer(source: AgentEntry, target: AgentEntry) -> Reply | None:
    """As ``first_answer_ms``, with what became of the packets before."""
    count = int(GIVE_UP_S / PING_EVERY_S)
    argv = ["ip", "netns", "exec", source.netns, "ping", "-n", "-i", str(PING_EVERY_S)]
    argv += ["-c", str(count), "-W", "1", str(target.eids[0])]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            return read_answers(process.stdout)
        finally:
            process.kill()


def read_answers(lines: Iterable[bytes]) -> Reply | None:
    """Read what ping says, as far as needed to know what became of the first packets."""
    first: int | None = None
    after_ms, missing = 0.0, set[int]()
    for line in lines:
        if not (reply := _REPLY.search(line)):
            continue
        number = int(reply[1])
        if first is None:
            first = number
            after_ms = (number - 1) * (PING_EVERY_S * 1e3) + float(reply[2])
            missing = set(range(1, number))
        missing.discard(number)
        if not missing or number >= first + LATER:
            break
    if first is None:
        return None
    return Reply(after_ms, len(missing), first - 1 - len(missing))


def _counters(agent: AgentEntry) -> dict[str, int]:
    counters: dict[str, int] = request(agent.socket, {"op": "status"})["counters"]
    return counters


def _difference(old: dict[str, int], new: dict[str, int]) -> dict[str, int]:
    return {name: value - old.get(name, 0) for name, value in new.items() if value != old.get(name)}


def _is_calm(agent: AgentEntry) -> bool:
    return _counters(agent)["now.requests"] == 0


def _is_registered(agent: AgentEntry) -> bool:
    return bool(request(agent.socket, {"op": "status"})["registered"])


def _becomes_true(condition: Callable[[], bool]) -> bool:
    with suppress(LabError):
        return Deadline(TAKEN_S).wait(condition, lambda: "the fault has its effect")
    return False
