"""Handing leadership over (Raft thesis, 3.10): the leader pauses until another one can stand."""

from collections.abc import Callable

from wgmap_cluster.raft.interface import RefusedError
from wgmap_cluster.raft.library import Library, now
from wgmap_cluster.raft.messages import TimeoutNow
from wgmap_cluster.raft.proposals import Proposals


class Succession:
    """Who is to lead after this leader, if anybody is."""

    def __init__(
        self, node: Library, proposals: Proposals, connected: Callable[[str], bool]
    ) -> None:
        self._node, self._proposals, self._connected = node, proposals, connected
        self._successor: str | None = None  # waits until it has the whole log

    def begin(self, target: str | None) -> str:
        """As leader, have ``target`` (or the server that has most) take over; returns whom.

        This leader appends nothing for an election's time; once the other one has the whole log,
        it is told to stand. Raises RefusedError where nobody fit is connected and near enough.
        """
        if not self._node.leading:
            msg = f"it does not lead; {self._node.leader or 'nobody'} does"
            raise RefusedError(msg)
        fit = self._fit(target)
        if not fit:
            fault = "is not connected or lags far behind"
            msg = f"{target} {fault}" if target else f"every other server {fault}, or there is none"
            raise RefusedError(msg)
        self._successor = chosen = max(sorted(fit), key=lambda name: fit[name])
        self._pause()
        self.tick()
        return chosen

    def _fit(self, target: str | None) -> dict[str, int]:
        """Return who could take over, with what it has."""
        node = self._node
        least = max(1, node.wal.last - node.settings.retain_entries)
        return {
            name: match
            for name, match in self._matches().items()
            if match >= least
            and self._connected(name)
            and name in node.voters()
            and target in (None, name)
        }

    def _matches(self) -> dict[str, int]:
        return {node.id: index for node, index in self._node.match_index.items()}

    def _pause(self) -> None:
        self._proposals.hold_until = now() + self._node.settings.election_min_s

    def tick(self) -> None:
        """Tell the successor to stand once it has the whole log, or give up after a while."""
        if self._successor is None:
            return
        if not self._node.leading or now() >= self._proposals.hold_until:
            self._successor = None
        elif self._matches().get(self._successor) == self._node.wal.last:
            self._pause()
            self._node.send(self._successor, TimeoutNow(self._node.term))
            self._successor = None
