"""The measured figures that the model stands on, each from a CSV under docs/evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Self

from measured import Value, only, pick, read

PERCENT = 0.01
MICRO = 1e-6


@dataclass(frozen=True, slots=True)
class Line:
    """Something that grows evenly: ``base`` for nobody, ``each`` more for every peer."""

    base: float
    each: float

    def at(self, peers: float) -> float:
        """Return its value for so many peers."""
        return self.base + self.each * peers

    @classmethod
    def through(cls, one: tuple[float, float], other: tuple[float, float]) -> Self:
        """Return the line through two points (peers, value)."""
        each = (other[1] - one[1]) / (other[0] - one[0])
        return cls(one[1] - each * one[0], each)


@dataclass(frozen=True, slots=True)
class Costs:
    """What one server needs; processor time in cores, memory in bytes, the way in bits a second.

    ``steady``: agents that only say what agents at rest say (``server-scale.csv``). ``contact``:
    core seconds of all servers together for a first contact (``agent-scale.csv``). ``commit``: core
    seconds of one replica for a change, ``log_bytes`` what it writes, ``commits_a_second`` what a
    cluster takes (``committed.csv``).
    """

    responder: Line
    replica: Line
    wireguard: Line
    responder_memory: Line
    replica_memory: Line
    wireguard_memory: Line
    bits_in: Line
    bits_out: Line
    answer: Line  # bytes in which wireguard-go tells of all peers
    contact_responders: float
    contact_wireguard: float
    commit: float
    log_bytes: float
    commits_a_second: float

    @classmethod
    def read(cls, folder: Path, *, sizes: tuple[int, int]) -> Self:
        """Read all figures; ``sizes``: the two numbers of peers that the lines go through."""
        steady = pick(read(folder / "server-scale.csv"), phase="steady")
        contacts = pick(read(folder / "agent-scale.csv"), phase="growth", figure="cpu each")
        committed = read(folder / "committed.csv")
        return cls(
            **_lines(steady, sizes),
            contact_responders=_last(contacts, "responders") * MICRO,
            contact_wireguard=_last(contacts, "servers' wireguard-go") * MICRO,
            commit=_of_commits(committed, "replicas each") * MICRO / 3,
            log_bytes=_of_commits(committed, "log each"),
            commits_a_second=_of_commits(committed, "rate"),
        )


def _lines(steady: Sequence[Value], sizes: tuple[int, int]) -> dict[str, Line]:
    def line(process: str, figure: str, factor: float) -> Line:
        one, other = (
            (peers, factor * only(steady, peers=peers, process=process, figure=figure))
            for peers in sizes
        )
        return Line.through(one, other)

    processes = {"responder": "responder", "replica": "replica", "wireguard": "wireguard-go"}
    cpu = {name: line(process, "cpu", PERCENT) for name, process in processes.items()}
    memory = {f"{name}_memory": line(process, "memory", 1e6) for name, process in processes.items()}
    # What the agents send comes in at the server.
    bits = {"bits_in": line("all", "bytes_out", 1e6), "bits_out": line("all", "bytes_in", 1e6)}
    return cpu | memory | bits | {"answer": line("wireguard-go", "answer", 1e6)}


def _last(contacts: Sequence[Value], process: str) -> float:
    """Return a cost of the largest run: the one where most contacts were made."""
    return max(pick(contacts, process=process), key=lambda one: one.peers).value


def _of_commits(committed: Sequence[Value], figure: str) -> float:
    """Return the median of three servers' runs at the leader with 64 out."""
    of = pick(committed, phase="3 servers, committed", process="leader", window=64, figure=figure)
    return median(one.value for one in of)
