"""A responder's end of the feed, as tests need it, and datagrams of an agent."""

import asyncio
import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from support.fsm import key
from wgmap.lisp.codec import decode, encode
from wgmap.lisp.messages import Eid, Locator, MapNotify, MapRegister, Record
from wgmap_cluster.feed import (
    Answer,
    Attach,
    Barrier,
    BarrierDone,
    Changes,
    Connection,
    Contact,
    FeedMessage,
    Forward,
    Known,
    Lease,
    Rows,
    TableBegin,
    TableEnd,
    WhoKnows,
    connect,
)
from wgmap_cluster.fsm.rows import FEED_TABLES, Change, Table

DEADLINE_S = 10.0
M = TypeVar("M")


class Client:
    """Attaches as a responder does, keeps a copy of the tables, remembers what else came."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.index = 0
        self.copies = 0
        self.tables: dict[Table, dict[Any, Any]] = {table: {} for table in FEED_TABLES}
        self.answers: list[Answer] = []
        self.barriers: list[BarrierDone] = []
        self.lease = 0.0
        self.known: tuple[Contact, ...] | None = None  # whom it told of whom; None: no answer
        self._copy: dict[Table, dict[Any, Any]] | None = None
        self._something = asyncio.Event()
        self._task = asyncio.create_task(self._read())

    @classmethod
    async def attach(cls, path: Path, index: int = 0) -> "Client":
        client = cls(await asyncio.wait_for(connect(path), DEADLINE_S))
        client.index = index
        client.connection.send(Attach(index))
        return client

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self.connection.close()

    async def until(self, condition: Callable[[], M], deadline_s: float = DEADLINE_S) -> M:
        """Wait until the condition is true of what came; returns its value."""
        async with asyncio.timeout(deadline_s):
            while not (value := condition()):
                if self._task.done():
                    self._task.result()
                self._something.clear()
                await self._something.wait()
            return value

    def forward(self, datagram: bytes, source: tuple[str, int]) -> None:
        self.connection.send(Forward(source, datagram))

    async def register(self, datagram: bytes, source: tuple[str, int]) -> MapNotify:
        """Forward a register and wait for its answer."""
        before = len(self.answers)
        self.forward(datagram, source)
        await self.until(lambda: len(self.answers) > before)
        answer = self.answers[before]
        assert answer.destination == source
        message = decode(answer.datagram)
        assert isinstance(message, MapNotify)
        return message

    async def barrier(self, number: int) -> bool:
        """Ask for a read barrier; also tells that all before it was handled."""
        self.connection.send(Barrier(number))
        done = await self.until(lambda: [d for d in self.barriers if d.number == number])
        return done[0].ok

    async def _read(self) -> None:
        try:
            while True:
                self._take(await self.connection.receive())
                self._something.set()
        finally:
            self._something.set()

    def _take(self, message: FeedMessage) -> None:
        match message:
            case TableBegin():
                self._copy = {table: {} for table in FEED_TABLES}
            case Rows(changes):
                assert self._copy is not None
                _apply(self._copy, changes)
            case TableEnd(index):
                assert self._copy is not None
                self.tables, self._copy, self.index = self._copy, None, index
                self.copies += 1
            case Changes(index, changes, more):
                assert self._copy is None
                assert index > self.index
                _apply(self.tables, changes)
                self.index = self.index if more else index
            case Lease(until):
                self.lease = until
            case Answer():
                self.answers.append(message)
            case BarrierDone():
                self.barriers.append(message)
            case WhoKnows(number):
                if self.known is not None:
                    self.connection.send(Known(number, self.known))
            case other:
                raise AssertionError(f"a replica said {other!r}")


def _apply(tables: dict[Table, dict[Any, Any]], changes: tuple[Change, ...]) -> None:
    for change in changes:
        if change.row is None:
            tables[change.table].pop(change.key, None)
        else:
            tables[change.table][change.key] = change.row


def map_register(
    nonce: int, *prefixes: str, at: str = "127.0.0.1", ttl: int = 60, data: int = 99
) -> bytes:
    locators = (Locator(ipaddress.ip_address(at), 51820, key(data)),) if ttl else ()
    records = tuple(Record(Eid(ipaddress.ip_network(p)), locators, ttl) for p in prefixes)
    return encode(MapRegister(nonce, records))
