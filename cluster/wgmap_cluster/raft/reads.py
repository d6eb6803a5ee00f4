"""Linearizable reads without a log entry: ReadIndex (Raft thesis, 6.4), on any server.

The library's leader takes itself for one for up to 30 s after it was cut off. Here the leader
confirms with a quorum, after the question came, that it still leads; one round of heartbeats serves
every read that waits when it begins. A follower asks the leader, once for all its reads of a tick,
and waits until it has applied the index.
"""

from collections.abc import Callable
from dataclasses import dataclass

from wgmap_cluster.raft.library import Library, now
from wgmap_cluster.raft.messages import ReadReply, ReadRequest
from wgmap_cluster.raft.protocol import Leading

Done = Callable[[int | None], None]  # gets the index read at, None: not confirmed


@dataclass(slots=True)
class _Read:
    deadline: float
    done: Done


@dataclass(slots=True)
class _Round:
    """Reads that one round of heartbeats of this leader serves."""

    term: int
    number: int
    index: int
    local: list[_Read]
    remote: list[tuple[str, int]]  # (server, its request)


@dataclass(slots=True)
class _Asked:
    """Reads that wait for the leader's answer, for as long as that may take."""

    leader: str
    reads: list[_Read]


class Reads:
    """The reads of one server."""

    def __init__(self, node: Library, leading: Leading) -> None:
        self._node, self._leading = node, leading
        self._waiting: list[_Read] = []
        self._remote: list[tuple[str, int]] = []
        self._rounds: list[_Round] = []
        self._asked: dict[int, _Asked] = {}
        self._confirmed: list[tuple[int, _Read]] = []  # waiting to be applied here
        self._next_id = node.rng.getrandbits(48) << 12
        self._open = 0  # reads of this server that have not ended

    def add(self, deadline: float, done: Done) -> None:
        """Have ``done`` called when everything committed before now is applied here."""
        if self._open >= self._node.settings.pending_limit:
            self._node.figures.reads_refused += 1
            done(None)
            return
        self._open += 1
        self._waiting.append(_Read(deadline, done))

    def on_request(self, name: str, message: ReadRequest) -> None:
        """Take another server's question."""
        if not self._node.leading or len(self._remote) >= self._node.settings.pending_limit:
            self._node.send(name, ReadReply(message.id, 0))
            return
        self._remote.append((name, message.id))

    def on_reply(self, name: str, message: ReadReply) -> None:
        """Take the leader's answer."""
        asked = self._asked.pop(message.id, None)
        if asked is None or asked.leader != name:
            return
        if message.at == 0:
            self._node.refused_by(name)
            self._waiting.extend(asked.reads)  # it may be answered by the next leader
        else:
            self._confirmed.extend((message.at, read) for read in asked.reads)

    def pump(self) -> bool:
        """Move every read on; True if heartbeats must go out for a new round."""
        began = self._begin()
        self._settle()
        self._finish()
        self._expire()
        return began

    def _begin(self) -> bool:
        node = self._node
        if node.leading:
            return self._begin_round()
        for name, request in self._remote:
            node.send(name, ReadReply(request, 0))
        self._remote = []
        leader = node.reachable_leader()
        if self._waiting and leader is not None:
            self._next_id += 1
            reads, self._waiting = self._waiting, []
            self._asked[self._next_id] = _Asked(leader, reads)
            node.send(leader, ReadRequest(self._next_id))
        return False

    def _begin_round(self) -> bool:
        node = self._node
        first = node.first_of_term
        if not (self._waiting or self._remote) or first is None or node.commit < first:
            return False  # a new leader does not know yet what is committed
        number = self._leading.next_round()
        batch = _Round(node.term, number, node.commit, self._waiting, self._remote)
        self._rounds.append(batch)
        self._waiting, self._remote = [], []
        return True

    def _settle(self) -> None:
        rounds, self._rounds = self._rounds, []
        for batch in rounds:
            if not self._node.leading or batch.term != self._node.term:
                self._waiting.extend(batch.local)
                self._answer(batch, 0)
            elif self._leading.confirmed(batch.term, batch.number):
                self._confirmed.extend((batch.index, read) for read in batch.local)
                self._answer(batch, batch.index)
            else:
                self._rounds.append(batch)

    def _answer(self, batch: _Round, index: int) -> None:
        for name, request in batch.remote:
            self._node.send(name, ReadReply(request, index))

    def _finish(self) -> None:
        applied = self._node.applied
        ready = [(index, read) for index, read in self._confirmed if index <= applied]
        if ready:
            self._confirmed = [item for item in self._confirmed if item[0] > applied]
        for _, read in ready:
            self._end(read, applied)
        self._node.figures.reads_confirmed += len(ready)

    def lost(self, name: str) -> None:
        """Ask again what ``name`` was asked over a connection that is gone."""
        for request, asked in list(self._asked.items()):
            if asked.leader == name:
                self._waiting.extend(self._asked.pop(request).reads)

    def _expire(self) -> None:
        """End what is too late.

        An answer that is only on its way is waited for: asking again after a while would never
        end where the leader is further away than that.
        """
        time, leader = now(), self._node.leader
        for request, asked in list(self._asked.items()):
            asked.reads = self._unexpired(asked.reads, time)
            if asked.leader != leader or not asked.reads:
                self._waiting.extend(self._asked.pop(request).reads)
        self._waiting = self._unexpired(self._waiting, time)
        for batch in self._rounds:
            batch.local = self._unexpired(batch.local, time)
        late = {id(read) for _, read in self._confirmed if read.deadline < time}
        if late:
            self._unexpired([read for _, read in self._confirmed], time)
            self._confirmed = [item for item in self._confirmed if id(item[1]) not in late]

    def end_all(self) -> None:
        """End every read of this server as not confirmed, because it stops."""
        reads = [*self._waiting, *(read for _, read in self._confirmed)]
        reads += [read for batch in self._rounds for read in batch.local]
        reads += [read for asked in self._asked.values() for read in asked.reads]
        self._waiting, self._confirmed, self._rounds = [], [], []
        self._asked.clear()
        for read in reads:
            self._end(read, None)

    def _end(self, read: _Read, index: int | None) -> None:
        self._open -= 1
        read.done(index)

    def _unexpired(self, reads: list[_Read], time: float) -> list[_Read]:
        late = [read for read in reads if read.deadline < time]
        if not late:
            return reads
        for read in late:
            self._end(read, None)
        self._node.figures.reads_refused += len(late)
        return [read for read in reads if read.deadline >= time]
