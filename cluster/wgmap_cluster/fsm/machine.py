"""The state machine that the replicated log drives."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias, TypeVar

import msgpack

from wgmap_cluster.fsm import audit, commands, enrolment, instances, registration, restoration
from wgmap_cluster.fsm.commands import Command, CommandError, NewerCommandError
from wgmap_cluster.fsm.packing import PackingError, pack_rows, unpack_rows
from wgmap_cluster.fsm.results import Applied, Reason, Refused, RefusedError
from wgmap_cluster.fsm.rows import Change, Key, Meta, Row, Table
from wgmap_cluster.fsm.state import State
from wgmap_cluster.raft.interface import CannotApplyError

PIECE_BYTES = 64 * 1024
SNAPSHOT_FORMAT = 1
Listener: TypeAlias = Callable[[int, Applied], None]
C = TypeVar("C")

# What is possible while a backup is being restored.
_DURING_RESTORE = (
    *(commands.RestoreBegin, commands.RestoreRows, commands.RestoreEnd),
    *(commands.Advance, commands.SetServer, commands.RemoveServer),
)

_RULES: dict[type, Callable[..., Applied]] = {
    commands.Bootstrap: enrolment.bootstrap,
    commands.SetServer: enrolment.set_server,
    commands.RemoveServer: enrolment.remove_server,
    commands.Enrol: enrolment.enrol,
    commands.EnrolMany: enrolment.enrol_many,
    commands.SetInstance: instances.set_instance,
    commands.RestoreBegin: restoration.begin,
    commands.RestoreRows: restoration.rows,
    commands.RestoreEnd: restoration.end,
    commands.SetPeer: enrolment.set_peer,
    commands.Revoke: enrolment.revoke,
    commands.Register: registration.register,
    commands.Seen: registration.seen,
    commands.Expire: registration.expire,
    commands.Advance: registration.advance,
    commands.Note: audit.note,
}


class Machine:
    """Implements ``raft.interface.StateMachine``; ``state`` is for reading."""

    def __init__(self) -> None:
        """Start with an empty state."""
        self.state = State()
        self.index = 0  # of the last command that was applied
        self._listeners: list[Listener] = []
        self._restore_listeners: list[Callable[[], None]] = []

    def listen(self, listener: Listener) -> None:
        """Call back after every applied command, with its index, result and changes.

        Not called for what a restore brings: whoever keeps a copy must take a new one then.
        """
        self._listeners.append(listener)

    def listen_restored(self, listener: Callable[[], None]) -> None:
        """Call back after each restore, whether from this server's disk or from another one."""
        self._restore_listeners.append(listener)

    def apply(self, index: int, command: bytes) -> Applied:
        """Apply one committed command. Total: what is wrong with it is in the result.

        Only for one of a newer version raises CannotApplyError: others apply it.
        """
        applied = self._decide(command)
        for change in applied.changes:
            self.state.put(change)
        self.index = index
        for listener in self._listeners:
            listener(index, applied)
        return applied

    def _decide(self, data: bytes) -> Applied:
        try:
            command = commands.decode(data)
            return decide(self.state, command)
        except NewerCommandError as error:
            raise CannotApplyError(str(error)) from error
        except CommandError as error:
            return Applied(Refused(Reason.BAD_COMMAND, str(error)))
        except RefusedError as error:
            return Applied(error.refused)

    def snapshot(self) -> Iterable[bytes]:
        """Copy the tables (shallow) now; the pieces may be drawn later, in another thread."""
        return _pieces(self.index, self.copies())

    def copies(self) -> dict[Table, dict[Any, Any]]:
        """Copy the tables (shallow): rows do not change."""
        return {table: dict(rows) for table, rows in self.state.tables.items()}

    def restore(self, pieces: Iterator[bytes]) -> None:
        """Replace the whole state; raises PackingError and then changes nothing."""
        index = _read_header(next(pieces, b""))
        state = State()
        for piece in pieces:
            for change in unpack_rows(piece):
                state.put(change)
        self.state, self.index = state, index
        for listener in self._restore_listeners:
            listener()


def decide(state: State, command: Command) -> Applied:
    """Return what a command does to a state, which is not touched; raises RefusedError."""
    if not state.founded and not isinstance(command, commands.Bootstrap):
        raise RefusedError(Reason.NOT_FOUNDED)
    if Meta.RESTORING in state.meta and not isinstance(command, _DURING_RESTORE):
        raise RefusedError(Reason.RESTORING)
    return _RULES[type(command)](state, command)


def _pieces(index: int, tables: dict[Table, dict[Key, Row]]) -> Iterator[bytes]:
    yield msgpack.packb([SNAPSHOT_FORMAT, index])
    rows = (Change(table, key, row) for table, each in tables.items() for key, row in each.items())
    yield from pack_rows(rows, PIECE_BYTES)


def _read_header(piece: bytes) -> int:
    try:
        form, index = msgpack.unpackb(piece, use_list=False)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise PackingError("a snapshot without a header") from error
    if form != SNAPSHOT_FORMAT or not isinstance(index, int):
        raise PackingError(f"a snapshot of format {form!r}: this version reads {SNAPSHOT_FORMAT}")
    return index
