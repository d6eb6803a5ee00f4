"""The judge: from what clients saw and what servers ended with, which promises were broken. Pure.

Each key has one writer, which numbers its writes upwards and proposes each once. So a read must
show, for every key, at least the greatest number that was acknowledged, or seen by another read,
before it began, and no number that was not yet proposed when it ended.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

MAX_EXAMPLES = 10


@dataclass(frozen=True, slots=True)
class Write:
    """One proposal; times are of the clients' one clock, in seconds."""

    key: int
    number: int
    begun: float
    ended: float
    outcome: str  # "applied", "not applied" or "unknown"


@dataclass(frozen=True, slots=True)
class Read:
    """One linearizable read that was confirmed."""

    server: str
    begun: float
    ended: float
    best: dict[int, int]


@dataclass(frozen=True, slots=True)
class Final:
    """What a server held at the end."""

    server: str
    index: int
    digest: str
    entries: Sequence[tuple[int, int]]


@dataclass
class History:
    """Everything that was recorded."""

    writes: list[Write] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    sights: dict[int, dict[str, str]] = field(default_factory=dict)  # index: digest: a server
    finals: list[Final] = field(default_factory=list)

    def sight(self, server: str, index: int, digest: str) -> None:
        """Take note of the digest that a server had at an index."""
        self.sights.setdefault(index, {}).setdefault(digest, server)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How often each promise was broken, and examples."""

    lost: int  # acknowledged, and missing at the end
    undead: int  # reported as not applied, and there
    doubled: int  # applied twice
    diverged: int  # indices at which two servers differed
    stale: int  # reads that missed what had been acknowledged or seen
    early: int  # reads that saw what had not been proposed
    examples: tuple[str, ...] = ()

    @property
    def broken(self) -> int:
        """All violations."""
        return self.lost + self.undead + self.doubled + self.diverged + self.stale + self.early


def judge(history: History) -> Verdict:
    """Judge a run; ValueError without servers at the end."""
    if not history.finals:
        msg = "no server told what it holds"
        raise ValueError(msg)
    kinds = {
        "lost": list(_lost(history)),
        "undead": list(_undead(history)),
        "doubled": list(_doubled(history)),
        "diverged": list(_diverged(history)),
        "stale": list(_stale(history)),
        "early": list(_early(history)),
    }
    examples = [f"{kind}: {text}" for kind, texts in kinds.items() for text in texts[:MAX_EXAMPLES]]
    return Verdict(**{kind: len(texts) for kind, texts in kinds.items()}, examples=tuple(examples))


def _lost(history: History) -> Iterator[str]:
    for final in history.finals:
        held = set(final.entries)
        for write in history.writes:
            if write.outcome == "applied" and (write.key, write.number) not in held:
                yield f"{write} on {final.server}"


def _undead(history: History) -> Iterator[str]:
    held = {entry for final in history.finals for entry in final.entries}
    for write in history.writes:
        if write.outcome == "not applied" and (write.key, write.number) in held:
            yield str(write)


def _doubled(history: History) -> Iterator[str]:
    for final in history.finals:
        for entry, times in Counter(final.entries).items():
            if times > 1:
                yield f"{entry} {times} times on {final.server}"


def _diverged(history: History) -> Iterator[str]:
    for index, digests in sorted(history.sights.items()):
        if len(digests) > 1:
            yield f"index {index}: {digests}"
    ends = {(final.index, final.digest) for final in history.finals}
    if len(ends) > 1:
        yield f"at the end: {[(f.server, f.index, f.digest) for f in history.finals]}"


def _stale(history: History) -> Iterator[str]:
    floors = sorted(_floors(history), key=lambda floor: floor[0])
    least: dict[int, int] = {}
    position = 0
    for read in sorted(history.reads, key=lambda read: read.begun):
        while position < len(floors) and floors[position][0] < read.begun:
            _raise(least, floors[position][1])
            position += 1
        missed = {k: n for k, n in least.items() if read.best.get(k, 0) < n}
        if missed:
            yield f"{read.server} at {read.begun:.3f}: {read.best}, missing {missed}"


def _floors(history: History) -> Iterator[tuple[float, dict[int, int]]]:
    for write in history.writes:
        if write.outcome == "applied":
            yield write.ended, {write.key: write.number}
    for read in history.reads:
        yield read.ended, read.best


def _early(history: History) -> Iterator[str]:
    proposed = sorted(history.writes, key=lambda write: write.begun)
    most: dict[int, int] = {}
    position = 0
    for read in sorted(history.reads, key=lambda read: read.ended):
        while position < len(proposed) and proposed[position].begun <= read.ended:
            _raise(most, {proposed[position].key: proposed[position].number})
            position += 1
        if any(number > most.get(key, 0) for key, number in read.best.items()):
            yield f"{read.server} at {read.ended:.3f}: {read.best}, proposed {most}"


def _raise(bounds: dict[int, int], by: dict[int, int]) -> None:
    for key, number in by.items():
        bounds[key] = max(number, bounds.get(key, 0))
