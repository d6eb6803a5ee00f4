"""The one way in which bytes are read here: every step is checked against the end.

After dnspython's wire parser: a restricted region is read in full or the datagram is refused.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from struct import Struct
from typing import Any

from wgmap.lisp.messages import CodecError


class Reader:
    """A cursor over one datagram."""

    __slots__ = ("_data", "_end", "offset")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._end = len(data)
        self.offset = 0

    @property
    def left(self) -> int:
        """Bytes up to the end of the present region."""
        return self._end - self.offset

    def take(self, size: int) -> bytes:
        """Read ``size`` bytes; raises CodecError where the region has fewer."""
        start = self.offset
        stop = start + size
        if stop > self._end:
            raise CodecError(f"{size} bytes wanted, {self._end - start} left", start)
        self.offset = stop
        return self._data[start:stop]

    def unsigned(self, size: int) -> int:
        """Read a big-endian integer of ``size`` bytes."""
        return int.from_bytes(self.take(size), "big")

    def unpack(self, layout: Struct) -> tuple[Any, ...] | None:
        """Read a fixed layout; None, and nothing is read, where the region has fewer bytes."""
        start = self.offset
        if start + layout.size > self._end:
            return None
        self.offset = start + layout.size
        return layout.unpack_from(self._data, start)

    def ahead(self, distance: int, size: int) -> int:
        """Look at an integer further on, without reading; 0 where the region ends before it."""
        start = self.offset + distance
        stop = start + size
        return int.from_bytes(self._data[start:stop]) if stop <= self._end else 0

    def finish(self) -> None:
        """Refuse bytes that nothing has read."""
        if self.offset != self._end:
            raise CodecError(f"{self.left} bytes left over", self.offset)

    @contextmanager
    def restrict_to(self, size: int) -> Iterator[None]:
        """Read a region of exactly ``size`` bytes; raises CodecError if any is left over."""
        if size > self.left:
            raise CodecError(f"a length of {size} with {self.left} bytes left", self.offset)
        outer = self._end
        self._end = self.offset + size
        yield
        self.finish()
        self._end = outer

    def error(self, reason: str, offset: int | None = None) -> CodecError:
        """Make the error for what stands at ``offset`` (default: here)."""
        return CodecError(reason, self.offset if offset is None else offset)
