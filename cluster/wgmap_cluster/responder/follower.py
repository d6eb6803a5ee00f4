"""Follows the replica's stream: keeps the tables, and says what a batch of changes means."""

from wgmap_cluster.feed import BarrierDone, Changes, FeedError, Lease, Rows, TableBegin, TableEnd
from wgmap_cluster.responder.effects import Effects, observe
from wgmap_cluster.responder.former import Former
from wgmap_cluster.responder.table import Tables

MAX_DEFERRED = 100_000  # messages that come while a copy does
Deferred = Changes | Lease | BarrierDone


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
        self.former = Former()

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
        self._forget_copy()

    def begin(self, message: TableBegin) -> None:
        """Start a copy; one that was under way is forgotten."""
        self._forget_copy()
        self._copy = Tables()
        self._copy.index = message.index

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
            self.former.add(copy)
            return None
        self._distrusted = False
        former, self.tables, self.has_tables = self.tables, copy, True
        self._effects = Effects()
        return former, deferred

    def _forget_copy(self) -> None:
        if self._copy is not None:
            self.former.add(self._copy)
        self._copy = None
        self._deferred = []

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
