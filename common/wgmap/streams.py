"""A small server for local clients: so many at a time, each ended with it, none keeps it up.

What is said is the handler's matter; that clients are few, are dropped without harm when they
misbehave, and are gone when the server is, is here.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from wgmap import accepting
from wgmap.log import Log

Handler: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class StreamServer:
    """Serves the clients of one listening socket until it is closed.

    ``handler``: serves one client, which is closed afterwards. TimeoutError, ConnectionError,
    EOFError, ValueError and LimitOverrunError out of it drop the client.
    """

    def __init__(self, handler: Handler, most: int, limit: int, log: Log) -> None:
        """``most`` clients at a time, more are closed at once; ``limit``: bytes read ahead."""
        self._handler = handler
        self._most = most
        self._limit = limit
        self._log = log
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    @property
    def is_open(self) -> bool:
        """Whether it was started and not closed since."""
        return self._server is not None

    async def start(self, listener: socket.socket) -> None:
        """Serve a bound stream socket, of whatever family."""
        self._server = await asyncio.start_server(
            self._accept, sock=listener, limit=self._limit, backlog=accepting.TURN
        )
        accepting.ready(self._server.sockets)

    async def close(self) -> None:
        """Stop serving; the clients that are left are closed."""
        if self._server is None:
            return
        self._server.close()
        for task in tuple(self._clients):
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        self._server = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= self._most:
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None  # asyncio runs this as a task
        self._clients.add(task)
        try:
            await self._handler(reader, writer)
        except (
            TimeoutError,
            ConnectionError,
            EOFError,
            ValueError,
            asyncio.LimitOverrunError,
        ) as error:
            self._log.debug("client dropped", reason=error)
        finally:
            self._clients.discard(task)
            with contextlib.suppress(ConnectionError):
                writer.close()
