"""The one place that knows the inside of PySyncObj.

The library keeps the state of a Raft server, drives its ticks, decides what is committed and when
to stand for election. Its storage, its messages and its transport are replaced (docs/replication.md
says why), through the methods below. They are private to it, so the version is pinned, and checked
when this module is imported; so is every name that is relied on.

Three of its globals are replaced, once, at import, for the whole process and without state that
belongs to one server: its pickle (refused), its clock (suspended time must count), and with it the
source of time for a simulation (``use_clock``).
"""

import _socket
import itertools
import socket
from collections.abc import Callable
from random import Random
from typing import Any, NoReturn

import pysyncobj.pickle
import pysyncobj.syncobj
from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.journal import Journal
from pysyncobj.node import Node
from pysyncobj.poller import Poller
from pysyncobj.transport import Transport
from pysyncobj.version import VERSION

from wgmap import clock
from wgmap_cluster.raft.figures import Figures
from wgmap_cluster.raft.interface import Role
from wgmap_cluster.raft.messages import Message, RequestVote
from wgmap_cluster.raft.settings import Settings
from wgmap_cluster.raft.wal import WriteAheadLog

# On import the library replaces this function of the standard library, on every system, by one that
# works on Windows only; netlink needs the true one.
socket.inet_ntop = _socket.inet_ntop

PINNED_VERSION = "0.3.17"
_RELIED_ON = (
    ("_onTick", "_checkCommandsToApply"),
    ("applyLogEntries", "sendAppendEntries", "connectedToAnyone", "onBecomeLeader"),
    ("setCurrentTerm", "setState", "tryLogCompaction", "loadDumpFile", "onMessageReceived"),
    ("generateRaftTimeout", "doApplyCommand", "onLeaderChanged"),
)

Now = Callable[[], float]
_source: list[Now] = [clock.now]


class UnsupportedLibraryError(ImportError):
    """Another version of PySyncObj than the one this hardening was proven with."""


def use_clock(source: Now) -> None:
    """Have every server in this process read the time from ``source`` (simulation only)."""
    _source[0] = source


def now() -> float:
    """Seconds, as the library and all around it see them."""
    return _source[0]()


def _refuse(*_args: object, **_kwargs: object) -> NoReturn:
    msg = "pickle is not used here"
    raise RuntimeError(msg)


def _check() -> None:
    if VERSION != PINNED_VERSION:
        msg = f"PySyncObj {VERSION} is installed, {PINNED_VERSION} is required"
        raise UnsupportedLibraryError(msg)
    for name in itertools.chain.from_iterable(_RELIED_ON):
        private = name if name.startswith("_") else f"_SyncObj__{name}"
        if not hasattr(SyncObj, private):
            msg = f"PySyncObj has no {private}"
            raise UnsupportedLibraryError(msg)


def _patch() -> None:
    for name in ("load", "loads", "dump", "dumps"):
        setattr(pysyncobj.pickle, name, _refuse)
    pysyncobj.syncobj.monotonicTime = now


_check()
_patch()


class _NoPoller(Poller):  # type: ignore[misc]  # the library has no types
    def poll(self, timeout: float) -> None:
        """Nothing to wait for: the loop that calls tick() does that."""


class _Journal(Journal):  # type: ignore[misc]
    """The write-ahead log, as the library addresses its journal."""

    def __init__(self, wal: WriteAheadLog) -> None:
        self._wal = wal

    def add(self, command: bytes, idx: int, term: int) -> None:
        self._wal.append((command, idx, term))

    def __getitem__(self, item: Any) -> Any:
        return self._wal.entries[item]

    def __len__(self) -> int:
        return len(self._wal.entries)

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:  # noqa: N802, N803
        self._wal.set_commit(raftCommitIndex)

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:  # noqa: N802, N803
        self._wal.set_term(term, votedForNodeId)


class _Adapter(Transport):  # type: ignore[misc]
    """Takes the only message that the library itself still sends: a request for votes."""

    def __init__(self, owner: "Library") -> None:
        super().__init__(None, None, None)
        self._owner = owner

    def send(self, node: Any, message: dict[str, Any]) -> bool:
        if message["type"] != "request_vote":
            raise AssertionError(message["type"])
        vote = (message["term"], message["last_log_index"], message["last_log_term"])
        self._owner.send(node.id, RequestVote(*vote, transfer=self._owner.transferring()))
        return True


class Library(SyncObj):  # type: ignore[misc]
    """A server of the library, with its private state made readable.

    Subclasses fill in the hooks below; everything else that the library would do with its own
    journal, serializer, messages and pickled commands is cut off here.
    """

    def __init__(
        self, name: str, others: set[str], wal: WriteAheadLog, settings: Settings, rng: Random
    ) -> None:
        self.name, self.wal, self.settings, self.rng = name, wal, settings, rng
        self.figures = Figures()
        nodes = [Node(other) for other in sorted(others)]
        conf = SyncObjConf(
            autoTick=False,
            appendEntriesPeriod=settings.heartbeat_s,
            raftMinTimeout=settings.election_min_s,
            raftMaxTimeout=settings.election_max_s,
            leaderFallbackTimeout=settings.fallback_s,
            connectionTimeout=settings.connection_timeout_s,
            commandsWaitLeader=False,
            appendEntriesUseBatch=True,
            dynamicMembershipChange=False,
            useFork=False,
        )
        super().__init__(Node(name), nodes, conf, transport=_Adapter(self))
        self._poller = _NoPoller()
        self._SyncObj__raftLog = _Journal(wal)
        self._SyncObj__raftCurrentTerm = max(wal.image.term, wal.entries[-1][2])
        self._SyncObj__votedForNodeId = wal.image.vote
        self._SyncObj__raftCommitIndex = wal.commit
        self._SyncObj__raftLastApplied = wal.first
        self._SyncObj__needLoadDumpFile = False

    # The state.
    @property
    def role(self) -> Role:
        """The role of this server."""
        return (Role.FOLLOWER, Role.CANDIDATE, Role.LEADER)[self._SyncObj__raftState]

    @property
    def leading(self) -> bool:
        """Whether this server takes itself for the leader."""
        return bool(self._SyncObj__raftState == 2)

    @property
    def leader(self) -> str | None:
        """The leader, as far as known here."""
        node = self._SyncObj__raftLeader
        return None if node is None else str(node.id)

    @leader.setter
    def leader(self, name: str | None) -> None:
        self._SyncObj__raftLeader = None if name is None else Node(name)

    @property
    def term(self) -> int:
        """The current term."""
        return int(self._SyncObj__raftCurrentTerm)

    @property
    def vote(self) -> str | None:
        """Whom this server voted for in the current term."""
        vote: str | None = self._SyncObj__votedForNodeId
        return vote

    @property
    def commit(self) -> int:
        """The last index known to be committed."""
        return int(self._SyncObj__raftCommitIndex)

    @property
    def applied(self) -> int:
        """The last index applied to the state machine."""
        return int(self._SyncObj__raftLastApplied)

    @applied.setter
    def applied(self, index: int) -> None:
        self._SyncObj__raftLastApplied = index

    @property
    def first_of_term(self) -> int | None:
        """Index of the empty entry with which this leader began its term."""
        index: int | None = self._SyncObj__noopIDx
        return index

    @property
    def next_index(self) -> dict[Any, int]:
        """Per node: the entry to be sent next."""
        result: dict[Any, int] = self._SyncObj__raftNextIndex
        return result

    @property
    def match_index(self) -> dict[Any, int]:
        """Per node: up to where its log is known to equal the leader's."""
        result: dict[Any, int] = self._SyncObj__raftMatchIndex
        return result

    @property
    def answered(self) -> dict[Any, float]:
        """Per node: when it last answered this leader."""
        result: dict[Any, float] = self._SyncObj__lastResponseTime
        return result

    def voters(self) -> set[str]:
        """Return the other servers whose votes and acknowledgements count."""
        return {str(node.id) for node in self._SyncObj__otherNodes}

    def set_voters(self, names: set[str]) -> None:
        """Replace the set of other servers that count."""
        nodes = {Node(name) for name in names}
        for node in set(self.match_index) - nodes:
            self.next_index.pop(node, None)
            self.match_index.pop(node, None)
            self.answered.pop(node, None)
        for node in nodes:
            self.next_index.setdefault(node, self.wal.last + 1)
            self.match_index.setdefault(node, 0)
            self.answered.setdefault(node, now())
        self._SyncObj__otherNodes = nodes

    def add_target(self, name: str) -> None:
        """Send entries to a server that does not count yet."""
        node = Node(name)
        self.next_index.setdefault(node, self.wal.last + 1)
        self.match_index.setdefault(node, 0)

    # What the layer does to the state.
    def raise_commit(self, index: int) -> None:
        """Note that everything up to ``index`` is committed."""
        if index > self.commit:
            self._SyncObj__raftCommitIndex = index
            self.wal.set_commit(index)

    def enter_term(self, term: int, vote: str | None) -> None:
        """Set term and vote; durable with the sync of this tick, before any reply leaves."""
        self._SyncObj__setCurrentTerm(term, vote)

    def follow(self, leader: str | None) -> None:
        """Become a follower of ``leader``."""
        self._SyncObj__setState(0)
        self.leader = leader

    def lead(self) -> None:
        """Begin to lead: the library appends the empty entry of the term."""
        self.figures.elections_won += 1
        self._SyncObj__onBecomeLeader()

    def postpone_election(self) -> None:
        """Draw a new election deadline."""
        self._SyncObj__raftElectionDeadline = now() + self._SyncObj__generateRaftTimeout()

    def hasten_election(self, seconds: float) -> None:
        """Let the election deadline be over so soon, if it is later."""
        deadline = self._SyncObj__raftElectionDeadline
        self._SyncObj__raftElectionDeadline = min(deadline, now() + seconds)

    def election_now(self) -> None:
        """Let the election deadline be over."""
        self._SyncObj__raftElectionDeadline = float("-inf")

    def heartbeat_sent(self) -> None:
        """Count the period to the next heartbeat from now."""
        self._SyncObj__newAppendEntriesTime = now() + self.settings.heartbeat_s

    def library_tick(self) -> None:
        """Elections, commit, apply and heartbeats, as the library orders them."""
        self._onTick(0)

    # Hooks.
    def send(self, name: str, message: Message) -> None:
        """Queue a message; it leaves after the sync of this tick."""
        raise NotImplementedError

    def reachable_leader(self) -> str | None:
        """Return another server that leads and can be asked; None where it just refused."""
        raise NotImplementedError

    def refused_by(self, name: str) -> None:
        """Take note that ``name`` says that it does not lead (just now)."""
        raise NotImplementedError

    def transferring(self) -> bool:
        """Whether this candidate stands because the leader asked it to."""
        raise NotImplementedError

    def may_campaign(self) -> bool:
        """Decide, with the election deadline over, whether to stand now."""
        raise NotImplementedError

    def send_entries(self) -> None:
        """Send entries or heartbeats to all others."""
        raise NotImplementedError

    def apply_committed(self) -> None:
        """Apply what is committed and not applied yet."""
        raise NotImplementedError

    def compact(self) -> None:
        """Take snapshots and cut the log as needed."""
        raise NotImplementedError

    # The library's methods that lead to the hooks.
    def _SyncObj__generateRaftTimeout(self) -> float:  # noqa: N802
        low, high = self.settings.election_min_s, self.settings.election_max_s
        return self.rng.uniform(low, high)

    def _SyncObj__connectedToAnyone(self) -> bool:  # noqa: N802
        return self.may_campaign()

    def _SyncObj__sendAppendEntries(self) -> None:  # noqa: N802
        self.send_entries()

    def _SyncObj__applyLogEntries(self) -> bool:  # noqa: N802
        self.apply_committed()
        return False

    def _SyncObj__tryLogCompaction(self) -> None:  # noqa: N802
        self.compact()

    def _SyncObj__onBecomeLeader(self) -> None:  # noqa: N802
        super()._SyncObj__onBecomeLeader()
        self.wal.sync()  # the library counts the empty entry in this very tick

    def _checkCommandsToApply(self) -> None:  # noqa: N802
        """Do nothing: the library's own queue of commands is never used."""

    def _SyncObj__onLeaderChanged(self) -> None:  # noqa: N802
        """Do nothing: the layer's own proposals end by themselves."""

    def _SyncObj__onMessageReceived(self, _node: object, _message: object) -> None:  # noqa: N802
        raise AssertionError("the library's own messages are not in use")

    def _SyncObj__loadDumpFile(self, *_: object, **__: object) -> None:  # noqa: N802
        raise AssertionError("the library's own snapshots are not in use")

    def _SyncObj__doApplyCommand(self, _command: object) -> None:  # noqa: N802
        raise AssertionError("the library's own commands are not in use")
