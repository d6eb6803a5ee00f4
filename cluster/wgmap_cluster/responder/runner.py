"""The responder process: one UDP socket, one feed, one service between them."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from wgmap import garbage
from wgmap.clock import now
from wgmap.log import Log
from wgmap.udp import SocketAddress, UdpEndpoint
from wgmap_cluster.feed import SOCKET_NAME, Answer, Connection, FeedError, ToReplica, connect
from wgmap_cluster.responder.actions import Action, Again, Send
from wgmap_cluster.responder.backlog import Backlog
from wgmap_cluster.responder.service import MAX_DATAGRAM, Service
from wgmap_cluster.supervisor import life

# A push is repeated 50 ms after it went out: who looks this often is never late by more.
LONGEST_SLEEP_S = 0.05
SHORTEST_SLEEP_S = 0.005
# Reading is much faster than serving: so a flood is sorted (and shed) here and not in the kernel's
# buffer, which knows no classes.
READ_A_TURN = 256
SERVE_S = 0.0005  # then what came meanwhile is read: it may be of a source whose turn is next
# Nobody waits for an answer longer than a few milliseconds for what is looked at in one go. What
# lives here and ends as a cycle (tasks, a connection) is rare, so to look often keeps little.
GARBAGE_S, GARBAGE = 1.0, 5000
_LOG = Log("responder")


class Responder:
    """Executes what the service decides."""

    def __init__(self, service: Service, udp: socket.socket, state_dir: Path) -> None:
        """Take over a bound, non-blocking UDP socket; the replica's is in the state directory."""
        self._service = service
        self._udp = UdpEndpoint(
            udp, self._datagram, MAX_DATAGRAM, READ_A_TURN, after=self._after_reading
        )
        self._backlog = Backlog(service.counters)
        self._serving = False
        self._at_once_until = 0.0  # what can be answered is, as it is read; 0: none was read yet
        self._feed = state_dir / SOCKET_NAME
        self._reading = False
        self._connection: Connection | None = None
        self._on_lease: Callable[[], None] | None = None

    def on_first_lease(self, callback: Callable[[], None]) -> None:
        """Call back once the tables are there and a leader vouched for them."""
        self._on_lease = callback

    async def run(self) -> NoReturn:
        """Serve until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._tick())
                tasks.create_task(garbage.collect(GARBAGE_S, most_new=GARBAGE))
                tasks.create_task(self._follow())
                tasks.create_task(life.beat())
        finally:
            self._udp.stop()
        raise AssertionError("the tasks have no end")

    async def _follow(self) -> NoReturn:
        while True:
            self._connection = await connect(self._feed)
            _LOG.info("attached", index=self._service.index)
            self._do(self._service.attached(now()))
            try:
                await self._listen(self._connection)
            except FeedError as error:
                _LOG.warning("detached", reason=error, index=self._service.index)
            finally:
                self._connection.close()
                self._connection = None
                self._service.detached()

    async def _listen(self, connection: Connection) -> NoReturn:
        while True:
            message = await connection.receive()
            if isinstance(message, ToReplica):
                raise FeedError(f"{type(message).__name__} from a replica")
            if isinstance(message, Answer):
                self._backlog.acknowledged(message.destination[0], message.datagram)
            self._do(self._service.feed(message, now()))
            self._start_reading()
            if self._on_lease is not None and self._service.is_fresh(now()):
                self._on_lease()
                self._on_lease = None

    def _start_reading(self) -> None:
        """Read datagrams from when there are tables; until then the kernel keeps them.

        Without tables nobody is known and nobody could be answered: so nothing that is asked
        while a responder starts anew is lost.
        """
        if not self._reading and self._service.has_tables:
            self._reading = True
            self._udp.start()

    async def _tick(self) -> NoReturn:
        while True:
            self._do(self._service.tick(now()))
            due = self._service.next_tick(now())
            wait = LONGEST_SLEEP_S if due is None else due - now()
            await asyncio.sleep(min(max(wait, SHORTEST_SLEEP_S), LONGEST_SLEEP_S))

    def _datagram(self, data: bytes, source: SocketAddress) -> None:
        where = source[0], source[1]
        at = now()
        if not self._service.admits(data, where, at):
            return
        if self._is_at_once(data, at):
            self._do(self._service.serve(data, where, at))
            self._service.took.observe(now() - at)
        else:
            self._backlog.add(data, where, at)

    def _is_at_once(self, data: bytes, at: float) -> bool:
        """Say whether to answer a lookup before more is read.

        While nothing waits it makes no difference to anybody, for as long as is served between two
        readings; what comes behind that is sorted.
        """
        if self._backlog.waiting or not self._backlog.is_lookup(data):
            return False
        if not self._at_once_until:
            self._at_once_until = at + SERVE_S
        return at < self._at_once_until

    def _after_reading(self) -> None:
        self._at_once_until = 0.0
        if self._backlog.waiting and not self._serving:
            self._serving = True
            self._serve()  # without a turn of the loop: nothing else waits

    def _serve_soon(self) -> None:
        if not self._serving:
            self._serving = True
            asyncio.get_running_loop().call_soon(self._serve)

    def _serve(self) -> None:
        began = at = now()
        for waiting in self._backlog.take():
            if not self._backlog.is_late(waiting, at):
                self._do(self._service.serve(waiting.data, waiting.source, at, waiting.until))
            at = now()  # of this end and of the next beginning: a look at the clock is not free
            if self._backlog.is_lookup(waiting.data):
                self._service.took.observe(at - waiting.at)
            if at - began > SERVE_S:
                break
        self._serving = False
        if self._backlog.waiting:
            self._serve_soon()

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                self._udp.send(action.datagram, action.destination)
            elif isinstance(action, Again):
                self._backlog.add(action.data, action.source, now(), action.until)
                self._serve_soon()
            elif self._connection is None or not self._connection.offer(action.message):
                self._service.counters["feed.left_out"] += 1
