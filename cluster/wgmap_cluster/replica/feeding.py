"""Keeps the tables of the responders exact: a copy where needed, then changes by index.

A responder that does not read fast enough is cut off by its connection's bound; it attaches
again and gets what it missed from the ring, or a new copy.
"""

import asyncio
from collections.abc import Iterator
from itertools import chain, count, islice

from wgmap.clock import now
from wgmap.log import Log
from wgmap_cluster.feed import (
    Attach,
    Barrier,
    BarrierDone,
    Changes,
    Connection,
    Contact,
    FeedClosedError,
    FeedError,
    FeedServer,
    Forward,
    Known,
    Lease,
    ResponderNote,
    Rows,
    TableBegin,
    TableEnd,
    ToResponder,
    WhoKnows,
)
from wgmap_cluster.fsm.machine import Machine
from wgmap_cluster.fsm.results import Applied
from wgmap_cluster.fsm.rows import FEED_TABLES, Change
from wgmap_cluster.replica.core import Core
from wgmap_cluster.replica.registrations import Registrar
from wgmap_cluster.replica.ring import Ring

COPY_ROWS = 256  # in one go: under 2 ms of work
MAX_SESSIONS = 16
MAX_BARRIERS = 8192  # read barriers that one responder may wait for
BARRIER_S = 1.0
ANSWER_S = 0.5  # to an operator's question
NOTES_S = 3.0  # without a note: a responder that is stopped or hangs
_LOG = Log("replica.feed")


class Session:
    """One attached responder."""

    def __init__(self, connection: Connection, feeder: "Feeder") -> None:
        self.connection = connection
        self.counters: dict[str, int] = {}  # as the responder last told them
        self.noted_at = float("-inf")  # when it did
        self._feeder = feeder
        self._index: int | None = None  # up to here it was told; None: a copy is needed or comes
        self._copy_wanted = asyncio.Event()
        self._waits = False  # it knows more than this replica has applied so far
        self._sent = 0  # index of the last changes that went to it
        self._has = 0  # index of the last changes that it told to have
        self._pending: list[Change] = []
        self._pending_index = 0
        self._barriers: list[int] = []
        self._barrier_wanted = asyncio.Event()
        self._questions: dict[int, asyncio.Future[tuple[Contact, ...]]] = {}

    @property
    def streaming(self) -> bool:
        """Whether it has all that was applied here, or will have with the next flush."""
        return self._index is not None and not self._waits

    @property
    def served(self) -> int:
        """The index whose state it answers with, as far as it has told; -1: not known."""
        if not self.streaming or self._index is None:
            return -1
        return self._index if self._has >= self._sent else min(self._has, self._index)

    # What the replica says.

    def changed(self, index: int, changes: tuple[Change, ...]) -> None:
        """Have the changes of a command sent before anything else is."""
        if self._index is None or index < self._index:
            return
        self._waits = False
        if index == self._index:
            return
        self._index = index
        if changes:
            if not self._pending:
                asyncio.get_running_loop().call_soon(self.flush)
            self._pending += changes
            self._pending_index = self._sent = index

    def flush(self) -> None:
        """Send the changes that wait."""
        if self._pending:
            pending, self._pending = self._pending, []
            self._write(Changes(self._pending_index, tuple(pending)))

    def say(self, message: ToResponder) -> None:
        """Send a message after all changes that were applied before."""
        self.flush()
        self._write(message)

    async def ask(self, peer: str, other: str, most: int) -> tuple[Contact, ...] | None:
        """Ask who was told of whom, see WhoKnows; None without an answer in time."""
        number = next(self._feeder.numbers)
        answer: asyncio.Future[tuple[Contact, ...]] = asyncio.get_running_loop().create_future()
        self._questions[number] = answer
        try:
            self._write(WhoKnows(number, peer, other, most))
            async with asyncio.timeout(ANSWER_S):
                return await answer
        except TimeoutError:
            return None
        finally:
            del self._questions[number]

    def _answered(self, message: Known) -> None:
        question = self._questions.get(message.number)
        if question is not None and not question.done():
            question.set_result(message.contacts)

    def _write(self, message: ToResponder) -> None:
        try:
            self.connection.send(message)
        except FeedClosedError as error:
            _LOG.debug("responder lost", reason=error)

    # What the responder says.

    async def run(self) -> None:
        """Serve until the connection ends; raises FeedError."""
        first = await self.connection.receive()
        if not isinstance(first, Attach):
            raise FeedError(f"{type(first).__name__} before Attach")
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(self._keep_attached(first.index)),
                tasks.create_task(self._serve_barriers()),
            ]
            try:
                await self._listen()
            finally:
                for task in background:
                    task.cancel()

    async def _listen(self) -> None:
        while True:
            message = await self.connection.receive()
            match message:
                case Forward():
                    self._feeder.registrar.handle(message, self.say)
                case Barrier(number):
                    self._ask_barrier(number)
                case Known():
                    self._answered(message)
                case ResponderNote(counters):
                    self.counters, self.noted_at = counters, now()
                    self._has = counters.get("index", 0)
                case _:
                    raise FeedError(f"{type(message).__name__} from a responder")

    async def _keep_attached(self, index: int) -> None:
        self._attach(index)
        while True:
            await self._copy_wanted.wait()
            self._copy_wanted.clear()
            await self._copy()

    def _attach(self, index: int) -> None:
        missed = self._feeder.ring.since(index) if index else None
        self._has = index
        applied = self._feeder.machine.index
        if index > applied:
            self._index, self._waits = index, True
        elif missed is not None:
            self._index = index
            self._catch_up(missed)
        else:
            self._copy_wanted.set()
        _LOG.info("responder attached", index=index, applied=applied, copy=self._index is None)

    def _catch_up(self, missed: list[tuple[int, tuple[Change, ...]]]) -> None:
        for index, changes in missed:
            self.changed(index, changes)
        self._index = self._feeder.machine.index

    def restart(self) -> None:
        """Give up on changes: the next thing it gets is a copy."""
        self._index, self._waits = None, False
        self._pending = []
        self._copy_wanted.set()

    def caught_up(self) -> None:
        """Take it that this replica has all there is: who claims to know more gets a copy."""
        if self._waits:
            _LOG.warning("responder knows more than the log", told=self._index)
            self.restart()

    async def _copy(self) -> None:
        """Send a whole copy in pieces, then what was changed meanwhile."""
        index = self._sent = self._feeder.machine.index
        self.say(TableBegin(index))
        for piece in _pieces(_copied(self._feeder.machine)):
            self.say(Rows(piece))
            await self.connection.drain()
            await asyncio.sleep(0)
        self.say(TableEnd(index))
        if self._copy_wanted.is_set():
            return  # the state was replaced meanwhile
        missed = self._feeder.ring.since(index)
        if missed is None:
            self.connection.close()  # too slow: it attaches again
            return
        self._index = index
        self._catch_up(missed)

    def _ask_barrier(self, number: int) -> None:
        if len(self._barriers) >= MAX_BARRIERS:
            self._feeder.counters.count("barrier.overload")
            self.say(BarrierDone(number, ok=False))
            return
        self._barriers.append(number)
        self._barrier_wanted.set()

    async def _serve_barriers(self) -> None:
        """One read barrier at a time serves all that were asked for before it."""
        while True:
            await self._barrier_wanted.wait()
            self._barrier_wanted.clear()
            numbers, self._barriers = self._barriers, []
            ok = await self._feeder.log.read_barrier(BARRIER_S) is not None
            for number in numbers:
                self.say(BarrierDone(number, ok=ok and self.streaming))


class Feeder:
    """Accepts responders and keeps them fed; hears of every applied command."""

    def __init__(self, core: Core, registrar: Registrar) -> None:
        """Listen to the machine; make it before the log starts, so that nothing is missed."""
        self.machine = core.machine
        self.log = core.log
        self.counters = core.counters
        self.registrar = registrar
        self.ring = Ring(core.machine.index)
        self.sessions: set[Session] = set()
        self.numbers = count(1)  # of questions
        core.machine.listen(self._applied)
        core.machine.listen_restored(self.restored)

    def _applied(self, index: int, applied: Applied) -> None:
        changes = self.ring.add(index, applied)
        for session in self.sessions:
            session.changed(index, changes)

    def restored(self) -> None:
        """Give everybody a copy: the state was replaced as a whole."""
        self.ring = Ring(self.machine.index)
        for session in self.sessions:
            session.restart()

    def served(self) -> int | None:
        """Return the index whose state all attached responders answer with; None without any."""
        return min((session.served for session in self.sessions), default=None)

    def counted(self) -> list[dict[str, int]]:
        """Return what each attached responder counted, as it told last."""
        return [session.counters for session in self.sessions]

    async def contacts(self, peer: str, other: str, most: int) -> list[Contact] | None:
        """Ask all responders who was told of whom; None where none answers in time."""
        sessions = [one for one in self.sessions if one.streaming]
        answers = await asyncio.gather(*(one.ask(peer, other, most) for one in sessions))
        told = [answer for answer in answers if answer is not None]
        return list(chain(*told)) if told else None

    def responding(self) -> int:
        """Return how many responders have all that was applied, and said anything of late."""
        since = now() - NOTES_S
        return sum(one.streaming and one.noted_at > since for one in self.sessions)

    def lease(self, until: float) -> None:
        """Tell that answers are authoritative until then; all is applied that must be."""
        for session in self.sessions:
            session.caught_up()
            if session.streaming:
                session.say(Lease(until))

    async def serve(self, server: FeedServer) -> None:
        """Accept responders until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                connection = await server.accept()
                if len(self.sessions) >= MAX_SESSIONS:
                    self.counters.count("feed.refused")
                    connection.close()
                    continue
                tasks.create_task(self._session(connection))

    async def _session(self, connection: Connection) -> None:
        session = Session(connection, self)
        self.sessions.add(session)
        started = now()
        try:
            await session.run()
        except* FeedClosedError as group:
            _LOG.info("responder gone", reason=group.exceptions[0], after_s=now() - started)
        except* FeedError as group:
            self.counters.count("feed.errors")
            _LOG.error("responder cut off", reason=group.exceptions[0])
        finally:
            self.sessions.discard(session)
            connection.close()


def _copied(machine: Machine) -> Iterator[Change]:
    """Copy the tables (shallow) now and yield their rows later."""
    copies = {table: machine.state.tables[table].copy() for table in sorted(FEED_TABLES)}
    return (Change(table, key, row) for table, rows in copies.items() for key, row in rows.items())


def _pieces(rows: Iterator[Change]) -> Iterator[tuple[Change, ...]]:
    while piece := tuple(islice(rows, COPY_ROWS)):
        yield piece
