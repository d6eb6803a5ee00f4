"""Counters of what the engine did, dropped, refused and repaired."""

from collections import Counter


class Counters:
    """Named numbers; a name is made on first use, and names come only from our own code."""

    def __init__(self) -> None:
        self._values: Counter[str] = Counter()

    def add(self, name: str, amount: int = 1) -> None:
        """Count."""
        self._values[name] += amount

    def __getitem__(self, name: str) -> int:
        return self._values[name]

    def all(self) -> dict[str, int]:
        """Return a copy, sorted by name."""
        return dict(sorted(self._values.items()))
