"""How many strangers may hold a connection to the API, and for how long."""

import asyncio
from collections.abc import Callable
from weakref import WeakSet

MOST = 128  # connections; more are closed at once
STRANGER_S = 10.0  # until a connection must have shown a token that is known


class Connections:
    """Counts and times the connections of one listener."""

    def __init__(self, knows: Callable[[asyncio.Transport], bool]) -> None:
        """``knows``: whether a token that is known came over a connection."""
        self._knows = knows
        self._open: WeakSet[asyncio.Transport] = WeakSet()

    def limited(self, factory: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
        """Return a factory of protocols that refuse what is too much."""
        return lambda: _Watched(factory(), self._opened)

    def _opened(self, transport: asyncio.Transport) -> None:
        if sum(not each.is_closing() for each in self._open) >= MOST:
            transport.abort()
            return
        self._open.add(transport)
        asyncio.get_running_loop().call_later(STRANGER_S, self._look, transport)

    def _look(self, transport: asyncio.Transport) -> None:
        if not transport.is_closing() and not self._knows(transport):
            transport.abort()


class _Watched(asyncio.Protocol):
    """Passes everything on, and tells of a connection once it is made."""

    def __init__(
        self, inner: asyncio.Protocol, opened: Callable[[asyncio.Transport], None]
    ) -> None:
        self._inner = inner
        self._opened = opened
        self.data_received = inner.data_received  # type: ignore[method-assign]
        self.eof_received = inner.eof_received  # type: ignore[method-assign]
        self.connection_lost = inner.connection_lost  # type: ignore[method-assign]
        self.pause_writing = inner.pause_writing  # type: ignore[method-assign]
        self.resume_writing = inner.resume_writing  # type: ignore[method-assign]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._inner.connection_made(transport)
        assert isinstance(transport, asyncio.Transport), "a stream"
        self._opened(transport)
