"""What happens in the cluster, as events for whoever looks: bounded, and never in the way.

Every server tells of all that it applies. Events are no record: what operators did is in the
audit trail, what is registered is in the tables.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from typing_extensions import TypedDict

from wgmap.errors import UnavailableError
from wgmap_cluster.fsm.machine import Machine
from wgmap_cluster.fsm.results import Applied, Done, Registered, Taken
from wgmap_cluster.fsm.rows import AuditRow, Meta, Table
from wgmap_cluster.raft.interface import LogError, LogStatus, ReplicatedLog
from wgmap_cluster.replica.views import prefix_texts

MAX_RECENT = 1000  # kept for those who look later
MAX_WAITING = 1000  # for one client; more: it is dropped
MAX_CLIENTS = 16
WATCH_S = 0.2  # how often the log is asked who leads

_OF_ACTION = {
    "enrol": "enrolled",
    "set": "changed",
    "revoke": "revoked",
    "bootstrap": "founded",
    "set server": "server changed",
    "remove server": "server removed",
    "set instance": "instance changed",
    "restore": "restored",
}


class Event(TypedDict):
    """Something that happened: ``index`` is its place in the log, 0 where it has none."""

    index: int
    time: str  # wall clock of this server
    event: str
    subject: str
    detail: str


class Subscription:
    """What one client has not been sent yet."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.dropped = False  # it was too slow
        self._waiting: deque[Event] = deque()
        self._something = asyncio.Event()
        self._closed = False

    def add(self, event: Event) -> None:
        """Take an event; the one that is too many ends the subscription."""
        if len(self._waiting) >= MAX_WAITING:
            self.dropped = True
        if not self.dropped:
            self._waiting.append(event)
        self._something.set()

    def close(self) -> None:
        """Let the client go."""
        self._closed = True
        self._something.set()

    async def next(self, wait_s: float) -> list[Event] | None:
        """Return what came, maybe nothing within ``wait_s``; None at the end."""
        if not self._something.is_set():
            try:
                async with asyncio.timeout(wait_s):
                    await self._something.wait()
            except TimeoutError:
                return []
        self._something.clear()
        events, self._waiting = list(self._waiting), deque()
        if not events and (self._closed or self.dropped):
            return None
        if self._closed or self.dropped:
            self._something.set()  # the end comes next
        return events


class EventHub:
    """Turns what is applied into events and hands them to all clients."""

    def __init__(self, machine: Machine, log: ReplicatedLog) -> None:
        """Listen to the machine; ``watch`` adds who leads."""
        self._log = log
        self._recent: deque[Event] = deque(maxlen=MAX_RECENT)
        self._clients: set[Subscription] = set()
        self._leader: str | None = None
        self._reached: dict[str, bool] = {}
        machine.listen(self._applied)
        machine.listen_restored(self._restored)

    @property
    def followers(self) -> int:
        """How many clients follow."""
        return len(self._clients)

    def recent(self) -> list[Event]:
        """Return the last events, oldest first."""
        return list(self._recent)

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """Have what happens from now on; raises UnavailableError where too many look already."""
        if len(self._clients) >= MAX_CLIENTS:
            raise UnavailableError(f"{MAX_CLIENTS} clients follow this server's events already")
        subscription = Subscription()
        self._clients.add(subscription)
        try:
            yield subscription
        finally:
            self._clients.discard(subscription)

    def close(self) -> None:
        """Let all clients go."""
        for client in self._clients:
            client.close()

    async def watch(self) -> None:
        """Tell of changes of the leader, and of servers lost and found, until cancelled."""
        while True:
            try:
                status = self._log.status()
            except LogError:  # it stops, and the process with it
                return
            self._look(status)
            await asyncio.sleep(WATCH_S)

    def _look(self, status: LogStatus) -> None:
        leader = status.leader
        if leader != self._leader:
            said = f"after {self._leader}" if self._leader else ""
            self._tell(0, "leader" if leader else "no leader", leader or "", said)
            self._leader = leader
        reached = {name: one.connected for name, one in status.others.items()}
        for name in sorted(reached):
            if reached[name] != self._reached.get(name, reached[name]):
                self._tell(0, "reachable" if reached[name] else "unreachable", name, "")
        self._reached = reached

    def _applied(self, index: int, applied: Applied) -> None:
        for what, subject, detail in events_of(applied):
            self._tell(index, what, subject, detail)

    def _restored(self) -> None:
        self._tell(0, "snapshot", "", "the state was replaced as a whole: look at the tables")

    def _tell(self, index: int, what: str, subject: str, detail: str) -> None:
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        event: Event = {
            "index": index,
            "time": time,
            "event": what,
            "subject": subject,
            "detail": detail,
        }
        self._recent.append(event)
        for client in self._clients:
            client.add(event)


def events_of(applied: Applied) -> Iterator[tuple[str, str, str]]:
    """Yield (event, subject, detail) of one applied command."""
    result = applied.result
    if isinstance(result, Registered):
        mapped = any(change.table is Table.MAPPINGS for change in applied.changes)
        if mapped and result.taken is not Taken.OLDER:
            standing = " ".join(prefix_texts(prefix for prefix, _ in result.mappings))
            yield "registered" if standing else "withdrawn", result.peer, standing
        return
    if any(change[:2] == (Table.META, Meta.RESTORED) and change.row for change in applied.changes):
        return  # a piece of a backup: what it tells of is long past
    for change in applied.changes:
        row = change.row
        if isinstance(row, AuditRow):
            yield _OF_ACTION.get(row.action, row.action), row.subject, row.detail
    if isinstance(result, Done):
        for name in result.left:
            yield "expired", name, ""
