"""Follows the replica's stream: keeps the tables, and says what a batch of changes means."""

from dataclasses import dataclass, field
from typing import NamedTuple

from wgmap_cluster.feed import BarrierDone, Changes, FeedError, Lease, Rows, TableBegin, TableEnd
from wgmap_cluster.fsm.rows import Change, MappingRow, PeerRow, RevocationRow, Row, Table
from wgmap_cluster.responder.mappings import Place
from wgmap_cluster.responder.table import Tables
from wgmap_cluster.responder.written import record_bytes

SERVER_SET = ""  # the subject that is no peer: the map servers themselves
MAX_DEFERRED = 100_000  # messages that come while a copy does
Deferred = Changes | Lease | BarrierDone


class Withdrawn(NamedTuple):
    """A mapping that was, of one peer."""

    place: Place
    peer: str
    record: bytes


@dataclass(slots=True)
class Effects:
    """What a batch of changes means for those who were told of the former state."""

    touched: dict[str, None] = field(default_factory=dict)  # subjects that changed
    around: dict[str, None] = field(default_factory=dict)  # peers whose room changed
    withdrawn: list[Withdrawn] = field(default_factory=list)
    appeared: list[tuple[Place, str]] = field(default_factory=list)  # new mapping, its peer
    inside: list[tuple[str, str]] = field(default_factory=list)  # (peer around, new peer)
    revoked: dict[int, RevocationRow] = field(default_factory=dict)  # by number
    renamed: dict[str, str] = field(default_factory=dict)  # what it serves stays the same
    gone: dict[str, None] = field(default_factory=dict)  # agents no longer enrolled


def observe(tables: Tables, change: Change, effects: Effects) -> None:
    """Note what a change means before it is applied."""
    key, row = change.key, change.row
    if change.table is Table.MAPPINGS and isinstance(key, tuple):
        _mapping(tables, Place(*key), row if isinstance(row, MappingRow) else None, effects)
    elif change.table is Table.SERVERS:
        effects.touched[SERVER_SET] = None
    elif isinstance(row, RevocationRow) and isinstance(key, int):
        if key not in tables.revocations:
            effects.revoked[key] = row
    elif change.table is Table.PEERS and isinstance(key, str) and _is_gone(row):
        effects.gone[key] = None


def _is_gone(row: Row | None) -> bool:
    return not isinstance(row, PeerRow) or row.revoked


def _mapping(tables: Tables, place: Place, row: MappingRow | None, effects: Effects) -> None:
    old = tables.mapping(place)
    record = None if row is None else record_bytes(place.instance, place.prefix, row)
    owner = None if old is None else old.peer.name
    present = None if row is None else row.peer
    if old is not None and old.record == record:
        if owner is not None and present is not None and owner != present:
            effects.renamed[owner] = present
        return
    if old is not None and owner is not None:
        effects.touched[owner] = None
        if owner != present:
            effects.withdrawn.append(Withdrawn(place, owner, old.record))
    if present is not None:
        effects.touched[present] = None
    if owner != present:
        _surroundings(tables, place, present, effects)


def _surroundings(tables: Tables, place: Place, peer: str | None, effects: Effects) -> None:
    space = tables.space(place.instance)
    around = [wide.peer.name for wide in space.around(place.prefix)] if space is not None else []
    effects.around |= dict.fromkeys(around)
    if peer is None:
        return
    effects.appeared.append((place, peer))
    if around and around[0] != peer:
        effects.inside.append((around[0], peer))


class Follower:
    """The tables as the replica feeds them; they never go back to an older state.

    While a whole copy comes the present tables go on, and what comes in between waits for the
    end of the copy: it was said of newer tables.
    """

    def __init__(self) -> None:
        self.tables = Tables()
        self.lease_until = 0.0
        self.has_tables = False
        self._told_index = 0  # the index up to which this replica has told us
        self._distrusted = False
        self._copy: Tables | None = None
        self._deferred: list[Deferred] = []
        self._effects = Effects()

    def is_fresh(self, now: float) -> bool:
        """Say whether answers are authoritative."""
        return now < self.lease_until

    @property
    def attach_index(self) -> int:
        """The index that the replica is told: from there it goes on; 0 asks for a copy."""
        return 0 if self._distrusted else self.tables.index

    def lease(self, until: float) -> None:
        """Have answers authoritative until then; raises FeedError.

        A lease says that we were told all that the log has. If that is less than what the
        tables have, they are of another log (one that was restored or made anew): no answer
        from them is authoritative any more, and the next copy is taken whatever its index.
        """
        if 0 < self._told_index < self.tables.index:
            self._distrusted, self.lease_until = True, 0.0
            raise FeedError("the log has less than the tables: asking for a copy")
        self.lease_until = until

    def disconnected(self) -> None:
        """Forget a copy that did not come to its end."""
        self._told_index = 0
        self._effects = Effects()
        self._copy = None
        self._deferred = []

    def begin(self, message: TableBegin) -> None:
        """Start a copy; one that was under way is forgotten."""
        self._copy = Tables()
        self._copy.index = message.index
        self._deferred = []

    def rows(self, message: Rows) -> None:
        """Take rows of the copy; raises FeedError."""
        if self._copy is None:
            raise FeedError("rows outside a copy")
        for change in message.changes:
            self._copy.apply(change)

    def end(self, message: TableEnd) -> tuple[Tables, list[Deferred]] | None:
        """Switch to the copy; returns the former tables and what waited for it.

        None where the copy is older than the tables: they stay as they are.
        """
        copy, self._copy = self._copy, None
        if copy is None:
            raise FeedError("the end of a copy that did not begin")
        deferred, self._deferred = self._deferred, []
        copy.index = self._told_index = message.index
        same = copy.cluster_id == self.tables.cluster_id and not self._distrusted
        if same and copy.index < self.tables.index:
            return None
        self._distrusted = False
        former, self.tables, self.has_tables = self.tables, copy, True
        self._effects = Effects()
        return former, deferred

    def defer(self, message: Deferred) -> bool:
        """Keep a message for the end of the copy; False where none is under way."""
        if self._copy is None:
            return False
        if len(self._deferred) >= MAX_DEFERRED:
            raise FeedError("too much comes while a copy does")
        self._deferred.append(message)
        return True

    def changes(self, message: Changes) -> Effects | None:
        """Apply changes; returns what they mean when their index is complete."""
        self._told_index = message.index
        if message.index <= self.tables.index:
            return None  # known already
        for change in message.changes:
            observe(self.tables, change, self._effects)
            self.tables.apply(change)
        if message.more:
            return None
        self.tables.index = message.index
        effects, self._effects = self._effects, Effects()
        return effects


def compare(former: Tables, present: Tables, subjects: list[str]) -> Effects:
    """Say what a switch of tables means for the subjects that somebody was told of."""
    effects = Effects()
    for subject in subjects:
        if subject == SERVER_SET:
            if former.servers != present.servers:
                effects.touched[subject] = None
            continue
        before = {one.place: one.record for one in former.mappings_of(subject)}
        after = {one.place: one.record for one in present.mappings_of(subject)}
        if before != after:
            effects.touched[subject] = None
        gone = before.keys() - after.keys()
        effects.withdrawn += [Withdrawn(place, subject, before[place]) for place in gone]
    if former.index:  # an empty table knew nobody: what was revoked long ago is no news
        new = sorted(present.revocations.keys() - former.revocations.keys())
        effects.revoked |= {number: present.revocations[number] for number in new}
    return effects
