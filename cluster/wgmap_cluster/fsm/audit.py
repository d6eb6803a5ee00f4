"""The trail of what operators did: numbered rows, the oldest go."""

from typing import NamedTuple

from wgmap_cluster.fsm.commands import Note, Origin
from wgmap_cluster.fsm.results import Applied, Done
from wgmap_cluster.fsm.rows import AuditRow, Change, Meta, Table
from wgmap_cluster.fsm.state import State

MAX_AUDIT_ROWS = 50_000  # some 10 MB; the oldest goes. Part of the state: the same everywhere


class Entry(NamedTuple):
    """What was done to whom."""

    action: str
    subject: str
    detail: str = ""


def record(state: State, origin: Origin, *entries: Entry) -> list[Change]:
    """Return the changes that note these entries."""
    last = int(state.meta.get(Meta.AUDITED, 0))
    changes = [Change(Table.META, Meta.AUDITED.value, last + len(entries))] if entries else []
    for number, entry in enumerate(entries, last + 1):
        row = AuditRow(state.clock, origin.wall, origin.server, origin.operator, *entry)
        changes.append(Change(Table.AUDIT, number, row))
        if number - MAX_AUDIT_ROWS in state.audit:
            changes.append(Change(Table.AUDIT, number - MAX_AUDIT_ROWS, None))
    return changes


def note(state: State, command: Note) -> Applied:
    """Note what an operator did that changes nothing."""
    entry = Entry(command.action, command.subject, command.detail)
    return Applied(Done(), tuple(record(state, command.origin, entry)))
