"""Values in order, for the neighbours of an address: a list of short sorted lists.

Adding costs a bisection and a shift within one short list, so a million prefixes are no more
work for one change than a thousand.
"""

from bisect import bisect_left, bisect_right, insort
from typing import Generic, TypeVar

_BLOCK = 512  # a longer list is cut in two
Value = TypeVar("Value", int, bytes)


class Ordered(Generic[Value]):
    """A sorted set of values; adding what is there and removing what is not: no change."""

    __slots__ = ("_blocks", "_lasts")

    def __init__(self) -> None:
        self._blocks: list[list[Value]] = []
        self._lasts: list[Value] = []  # the greatest value of each block

    def __len__(self) -> int:
        return sum(map(len, self._blocks))

    def __contains__(self, value: Value) -> bool:
        at = bisect_left(self._lasts, value)
        if at == len(self._blocks):
            return False
        block = self._blocks[at]
        return block[bisect_left(block, value)] == value

    def add(self, value: Value) -> None:
        """Put a value in."""
        if not self._blocks:
            self._blocks.append([value])
            self._lasts.append(value)
        elif value not in self:
            at = min(bisect_left(self._lasts, value), len(self._blocks) - 1)
            insort(self._blocks[at], value)
            self._settle(at)

    def remove(self, value: Value) -> None:
        """Take a value out."""
        if value in self:
            at = bisect_left(self._lasts, value)
            block = self._blocks[at]
            del block[bisect_left(block, value)]
            self._settle(at)

    def before(self, value: Value) -> Value | None:
        """Return the greatest value below ``value``."""
        at = bisect_left(self._lasts, value)
        if at < len(self._blocks):
            block = self._blocks[at]
            within = bisect_left(block, value)
            if within:
                return block[within - 1]
        return self._lasts[at - 1] if at else None

    def after(self, value: Value) -> Value | None:
        """Return the smallest value above ``value``."""
        at = bisect_right(self._lasts, value)
        if at == len(self._blocks):
            return None
        block = self._blocks[at]
        return block[bisect_right(block, value)]

    def _settle(self, at: int) -> None:
        block = self._blocks[at]
        if not block:
            del self._blocks[at], self._lasts[at]
        elif len(block) > _BLOCK:
            half = len(block) // 2
            self._blocks[at : at + 1] = [block[:half], block[half:]]
            self._lasts[at : at + 1] = [block[half - 1], block[-1]]
        else:
            self._lasts[at] = block[-1]
