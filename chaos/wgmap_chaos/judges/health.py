"""No process ends by itself, nothing is logged as a traceback, nothing grows without end."""

import math
from collections import defaultdict
from collections.abc import Iterator
from statistics import median

from wgmap_chaos.history.history import History
from wgmap_chaos.history.records import Call, Fault, Op, Sample, Vanished
from wgmap_chaos.judges.verdict import Verdict

GRACE_S = 15.0  # a process that a fault ended may be missed so long after it
WARM_S = 30.0  # a process that has just started still grows
ENOUGH = 6  # samples
WIREGUARD = 2  # times the memory: wireguard-go keeps its buffers, of 64 KiB, 1,024 in each queue


def judge(history: History) -> Verdict:
    """Judge processes; what a fault says that it ends is excused."""
    broken = [*_vanished(history), *_said(history), *_grown(history)]
    return Verdict("health", len(history.samples), "samples of processes", tuple(broken))


def _vanished(history: History) -> Iterator[str]:
    for one in history.vanished:
        explained = any(_explains(fault, one) for fault in history.faults)
        if not explained and not any(_replaced(turn, one) for turn in history.of(Op.ROTATE)):
            when = f"between {one.seen:.1f} and {one.missed:.1f}"
            yield f"{one.host}: {one.role} ended by itself {when}"


def _explains(fault: Fault, one: Vanished) -> bool:
    during = fault.begun <= one.missed and one.seen <= fault.healed + GRACE_S
    return during and one.host in fault.targets and one.role.split()[0] in fault.roles


def _replaced(turn: Call, one: Vanished) -> bool:
    """Tell whether it was the device of a data key that has been rotated away."""
    ended = math.inf if turn.ended is None else turn.ended
    during = turn.begun <= one.missed and one.seen <= ended + GRACE_S
    return during and one.host == turn.key and one.role.startswith("wireguard dat")


def _said(history: History) -> Iterator[str]:
    for one in history.said:
        yield f"{one.host}: {one.text}"


def _grown(history: History) -> Iterator[str]:
    run = history.run
    for (host, role), samples in _lives(history).items():
        memory = _growth([one.rss_mb for one in samples])
        descriptors = _growth([float(one.fds) for one in samples])
        most_mb = run.grown_mb * (WIREGUARD if role.startswith("wireguard ") else 1)
        if memory > most_mb:
            yield f"{host}: {role} grew by {memory:.0f} MB, {most_mb:g} are allowed"
        if descriptors > run.grown_fds:
            most = run.grown_fds
            yield f"{host}: {role} has {descriptors:.0f} descriptors more, {most} are allowed"


def _lives(history: History) -> dict[tuple[str, str], list[Sample]]:
    """Return the samples of the longest life of each process, without its first moments."""
    lives: dict[tuple[str, str, int], list[Sample]] = defaultdict(list)
    for one in history.samples:
        lives[one.host, one.role, one.pid].append(one)
    longest: dict[tuple[str, str], list[Sample]] = {}
    for (host, role, _), samples in lives.items():
        warm = [one for one in samples if one.at >= samples[0].at + WARM_S]
        if len(warm) >= max(ENOUGH, len(longest.get((host, role), ()))):
            longest[host, role] = warm
    return longest


def _growth(values: list[float]) -> float:
    part = max(3, len(values) // 5)
    return median(values[-part:]) - median(values[:part])
