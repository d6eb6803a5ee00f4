"""Peers that repeated their register here: told to the log as one batch every few seconds."""

from collections.abc import Iterable, Iterator

from wgmap_cluster.fsm.commands import MAX_BATCH, Seen

PERIOD_S = 5.0
MAX_BYTES = 24 * 1024  # of names in one command
MAX_NAMES = 1 << 20  # more than there are peers; the rest is noted at its next register


class SeenBatch:
    """Names since the last batch, each once."""

    def __init__(self) -> None:
        """Start empty."""
        self._names: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._names)

    def add(self, name: str) -> None:
        """Note that a peer was seen."""
        if len(self._names) < MAX_NAMES:
            self._names[name] = None

    def put_back(self, names: Iterable[str]) -> None:
        """Keep names whose command was not committed."""
        for name in names:
            self.add(name)

    def drain(self) -> Iterator[Seen]:
        """Take all names as commands that fit the log."""
        names, self._names = list(self._names), {}
        return _commands(names)


def _commands(names: list[str]) -> Iterator[Seen]:
    batch: list[str] = []
    size = 0
    for name in names:
        if batch and (size + len(name) + 2 > MAX_BYTES or len(batch) >= MAX_BATCH):
            yield Seen(tuple(batch))
            batch, size = [], 0
        batch.append(name)
        size += len(name) + 2
    if batch:
        yield Seen(tuple(batch))
