"""Who the servers are: entries of the log, one server added or removed at a time.

A set of servers counts from the moment its entry is in a server's log, not from its commit (Raft
thesis, 4.1), and the next change waits for that commit and for an entry of the leader's own term.
A server that is added first gets the log without a vote, so that a dead or slow one does not
weaken the quorum. The leader is never removed: it hands over first.
"""

from dataclasses import dataclass, replace

import msgpack

from wgmap_cluster.raft.interface import Member, RefusedError
from wgmap_cluster.raft.library import Library, now
from wgmap_cluster.raft.wal import Entry

REGULAR, NO_OP, MEMBERS = b"\x00", b"\x01", b"\x02"  # kinds of entries
CHANGE, HAND_OVER = b"\x03", b"\x04"  # requests to the leader, which are no entries
_LEARNER_S = 5.0  # a server that is being added is forgotten so long after the last request
_CAUGHT_UP = 100  # entries behind the leader


@dataclass(frozen=True, slots=True)
class Change:
    """A request to the leader: add a server, or remove one."""

    add: bool
    member: Member

    def pack(self) -> bytes:
        """Return it as a command."""
        fields = [self.add, self.member.name, self.member.address]
        return CHANGE + bytes(msgpack.packb(fields))

    @classmethod
    def unpack(cls, command: bytes) -> "Change":
        """Read a command; raises RefusedError."""
        try:
            add, name, address = msgpack.unpackb(command[1:])
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            msg = "not a change of servers"
            raise RefusedError(msg) from error
        return cls(bool(add), Member(str(name), str(address)))


def pack_members(members: tuple[Member, ...]) -> bytes:
    """Return a set of servers as the command of an entry."""
    return MEMBERS + bytes(msgpack.packb([member.fields() for member in members]))


def unpack_members(command: bytes) -> tuple[Member, ...]:
    """Read what pack_members wrote."""
    return tuple(Member(*fields) for fields in msgpack.unpackb(command[1:]))


class Membership:
    """The servers as the log of this one has them."""

    def __init__(self, name: str, before: tuple[Member, ...], before_index: int) -> None:
        self._name = name
        self._before = before  # the servers as of before_index, the entries behind it count more
        self._before_index = before_index
        self.members = before
        self.index = before_index
        self.committed = before
        self.learner: Member | None = None
        self._learner_until = float("-inf")

    def replace_base(self, members: tuple[Member, ...], index: int) -> None:
        """Take from a snapshot who the servers are as of ``index``."""
        self._before, self._before_index = members, index

    def refresh(self, entries: list[Entry]) -> None:
        """Read the entries again, after some were added or truncated."""
        self.members, self.index = self._before, self._before_index
        for command, index, _ in reversed(entries):
            if index <= self._before_index:
                return
            if command[:1] == MEMBERS:
                self.members, self.index = unpack_members(command), index
                return

    def at(self, entries: list[Entry], index: int) -> tuple[Member, ...]:
        """Return the servers as of ``index``."""
        view = Membership(self._name, self._before, self._before_index)
        view.refresh(entries[: index - entries[0][1] + 1])
        return view.members

    def others(self) -> set[str]:
        """Return the names of the other servers."""
        return {member.name for member in self.members} - {self._name}

    def connectable(self) -> tuple[Member, ...]:
        """Return whom to have connections with.

        These are the servers, one that is being added, and, while the last change is not known to
        be committed, the servers before it: a leader that this server has only just removed may be
        the one that has to take that change back.
        """
        extra = () if self.learner is None else (self.learner,)
        wanted = {member.name: member for member in (*self.committed, *self.members, *extra)}
        return tuple(wanted.values())

    def store(self, name: str) -> bytes:
        """Return the disk with which a server was added; b"" where the log does not tell."""
        by_name = {member.name: member.store for member in (*self.committed, *self.members)}
        return by_name.get(name, b"")

    def translate(self, node: Library, command: bytes, answering: set[str]) -> bytes:
        """On the leader: turn a request into the entry to append. Raises RefusedError.

        ``answering`` are the servers that answer it at present.
        """
        change = Change.unpack(command)
        first = node.first_of_term
        if first is None or node.commit < first or node.commit < self.index:
            msg = "another change is not committed yet"
            raise RefusedError(msg)
        members = self._changed(node, change, answering)
        self._require_quorum(members, answering)
        self.learner = None
        return pack_members(members)

    def _changed(self, node: Library, change: Change, answering: set[str]) -> tuple[Member, ...]:
        known = {member.name: member for member in self.members}
        if not change.add:
            if change.member.name == self._name:
                msg = "it leads; hand over first"
                raise RefusedError(msg)
            return tuple(m for m in self.members if m.name != change.member.name)
        if known.get(change.member.name) == change.member:
            return self.members
        if change.member.name in known:
            msg = "a server of that name has another address; remove it first"
            raise RefusedError(msg)
        self._require_caught_up(node, change.member, answering)
        store = node.wal.image.stores.get(change.member.name, b"")
        return (*self.members, replace(change.member, store=store))

    def _require_quorum(self, members: tuple[Member, ...], answering: set[str]) -> None:
        """Refuse a set that could not even commit itself: it would stop the whole cluster."""
        silent = {member.name for member in members} - answering - {self._name}
        if 2 * len(silent) >= len(members):
            msg = f"too many of those that stay do not answer: {', '.join(sorted(silent))}"
            raise RefusedError(msg)

    def _require_caught_up(self, node: Library, member: Member, answering: set[str]) -> None:
        if self.learner is not None and self.learner != member:
            msg = f"{self.learner.name} is being added"
            raise RefusedError(msg)
        self.learner = member
        self._learner_until = now() + _LEARNER_S
        match = {peer.id: index for peer, index in node.match_index.items()}.get(member.name, 0)
        if match + _CAUGHT_UP < node.wal.last:
            msg = f"{member.name} is catching up ({match} of {node.wal.last})"
            raise RefusedError(msg)
        if member.name not in answering:
            msg = f"{member.name} does not answer"
            raise RefusedError(msg)

    def forget_learner(self, *, leading: bool) -> bool:
        """Drop a server that nobody asks to add any more; True if one was dropped."""
        if self.learner is None or (leading and now() < self._learner_until):
            return False
        self.learner = None
        return True
