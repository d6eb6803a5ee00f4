"""A backup comes back, piece by piece, into a cluster that is empty.

While it does, nobody registers and operators change nothing but servers. Pieces are numbered and
take effect once, so a restore that was broken off goes on where it stopped. What is not
restored: the cluster id (a restored cluster is another one), the server set and the clock (both
are of the cluster that runs).
"""

from collections.abc import Iterator

from wgmap.addresses import prefix_from_bytes
from wgmap_cluster.fsm import fields as field
from wgmap_cluster.fsm.audit import Entry, record
from wgmap_cluster.fsm.commands import (
    MAX_ENDPOINTS,
    MAX_INSTANCE_MAPPINGS,
    MAX_LOCATORS,
    MAX_PREFIXES,
    RestoreBegin,
    RestoreEnd,
    RestoreRows,
)
from wgmap_cluster.fsm.enrolment import check_apart, check_enrolled
from wgmap_cluster.fsm.fields import Check, FieldError
from wgmap_cluster.fsm.packing import PackingError, unpack_rows
from wgmap_cluster.fsm.results import Applied, Done, Reason, RefusedError
from wgmap_cluster.fsm.rows import (
    AuditRow,
    Change,
    InstanceRow,
    LocatorRow,
    MappingRow,
    Meta,
    PeerRow,
    RegistrationRow,
    RevocationRow,
    Table,
)
from wgmap_cluster.fsm.state import State
from wgmap_cluster.fsm.versions import HIGHEST

MAX_FRESH_AUDIT = 1000  # audit rows that an empty cluster may have; they give way
_EMPTY = (
    *(Table.PEERS, Table.REGISTRATIONS, Table.MAPPINGS, Table.VERSIONS),
    *(Table.REVOCATIONS, Table.INSTANCES),
)

_PREFIXES = field.many(field.PREFIX, MAX_PREFIXES)
_KEY = field.or_empty(field.KEY)
_TTL = field.integer(1 << 31)
_VERSION = field.integer(HIGHEST, 1)
_LOCATOR = field.row(
    LocatorRow,
    *(field.ADDRESS, field.PORT, field.OCTET, field.OCTET, field.or_empty(field.ADDRESS)),
)
_TEXT = field.text(64 * 1024)
_ROWS: dict[Table, Check] = {
    Table.PEERS: field.row(
        PeerRow,
        *(_KEY, field.ADDRESS, field.INSTANCE, _PREFIXES, field.many(field.PREFIX, MAX_ENDPOINTS)),
        *(field.octets(0, 128), field.integer(3), field.TRUTH, field.integer(MAX_PREFIXES)),
        field.NONCE,
    ),
    Table.REGISTRATIONS: field.row(
        RegistrationRow, field.NONCE, field.octets(32, 32), field.CLOCK, _TTL, _KEY
    ),
    Table.MAPPINGS: field.row(
        MappingRow, field.NAME, _KEY, field.many(_LOCATOR, MAX_LOCATORS), _TTL, _VERSION
    ),
    Table.VERSIONS: _VERSION,
    Table.AUDIT: field.row(AuditRow, field.CLOCK, *(6 * (_TEXT,))),
    Table.REVOCATIONS: field.row(RevocationRow, field.NAME, field.INSTANCE, _PREFIXES, _KEY),
    Table.INSTANCES: field.row(InstanceRow, _PREFIXES, field.integer(MAX_INSTANCE_MAPPINGS)),
}
_PLACE = field.pair(field.INSTANCE, field.PREFIX)
_NUMBER = field.integer((1 << 63) - 1, 1)
_KEYS: dict[Table, Check] = {
    Table.PEERS: field.NAME,
    Table.REGISTRATIONS: field.NAME,
    Table.MAPPINGS: _PLACE,
    Table.VERSIONS: _PLACE,
    Table.AUDIT: _NUMBER,
    Table.REVOCATIONS: _NUMBER,
    Table.INSTANCES: field.INSTANCE,
}
_META: dict[str, Check] = {
    Meta.OVERLAY: field.NETWORKS,
    Meta.REVOCATIONS: field.integer((1 << 63) - 1),
    Meta.AUDITED: field.integer((1 << 63) - 1),
    Meta.VERSION_FLOOR: _VERSION,
}


def begin(state: State, command: RestoreBegin) -> Applied:
    """Begin, or say how many pieces of the same backup are in already."""
    under_way = state.meta.get(Meta.RESTORING)
    if under_way == command.digest:
        return Applied(Done(changed=False, count=_pieces(state)))
    if under_way is not None:
        raise RefusedError(
            Reason.RESTORING, "another one; finish it, or start with empty state directories"
        )
    if state.meta.get(Meta.RESTORED_FROM) == command.digest:
        raise RefusedError(Reason.NOT_EMPTY, "it was made from this very backup")
    _check_empty(state)
    control = prefix_from_bytes(command.control_prefix)
    if control != state.control_prefix:
        detail = f"the backup's control prefix is {control}, this cluster's {state.control_prefix}"
        raise RefusedError(Reason.INVALID, detail)
    changes = (
        *(Change(Table.AUDIT, number, None) for number in state.audit),
        Change(Table.META, Meta.RESTORING.value, command.digest),
        Change(Table.META, Meta.RESTORED.value, 0),
    )
    return Applied(Done(), changes)


def rows(state: State, command: RestoreRows) -> Applied:
    """Put one piece in."""
    if state.meta.get(Meta.RESTORED_FROM) == command.digest:  # somebody else was faster
        return Applied(Done(changed=False, count=command.number))
    _check_digest(state, command.digest)
    done = _pieces(state)
    if command.number <= done:
        return Applied(Done(changed=False, count=done))
    if command.number != done + 1:
        raise RefusedError(Reason.INVALID, f"piece {command.number} after piece {done}")
    changes = [
        *_checked(state, command.rows),
        Change(Table.META, Meta.RESTORED.value, command.number),
    ]
    return Applied(Done(count=command.number), tuple(changes))


def end(state: State, command: RestoreEnd) -> Applied:
    """End: from here on this is a cluster like any other."""
    if state.meta.get(Meta.RESTORED_FROM) == command.digest:
        return Applied(Done(changed=False, count=command.pieces))
    _check_digest(state, command.digest)
    if _pieces(state) != command.pieces:
        raise RefusedError(Reason.INVALID, f"{_pieces(state)} pieces of {command.pieces}")
    cluster = bytes(state.meta[Meta.CLUSTER_ID]).hex()  # type: ignore[arg-type]  # 16 bytes
    changes = (
        Change(Table.META, Meta.RESTORING.value, None),
        Change(Table.META, Meta.RESTORED.value, None),
        Change(Table.META, Meta.RESTORED_FROM.value, command.digest),
        *record(state, command.origin, Entry("restore", cluster, command.detail)),
    )
    return Applied(Done(count=command.pieces), changes)


def _check_empty(state: State) -> None:
    for table in _EMPTY:
        if state.tables[table]:
            raise RefusedError(Reason.NOT_EMPTY, f"it has {table.name.lower()}")
    if len(state.audit) > MAX_FRESH_AUDIT:
        raise RefusedError(Reason.NOT_EMPTY, "it has a long audit trail")


def _check_digest(state: State, digest: bytes) -> None:
    if state.meta.get(Meta.RESTORING) != digest:
        raise RefusedError(Reason.INVALID, "this backup is not being restored")


def _pieces(state: State) -> int:
    return int(state.meta.get(Meta.RESTORED, 0))


def _checked(state: State, data: bytes) -> Iterator[Change]:
    """Yield the rows of a piece, each as strictly checked as a command's fields."""
    seen: set[object] = set()
    try:
        for change in unpack_rows(data):
            checked = _check(change)
            if isinstance(checked.row, PeerRow) and not checked.row.revoked:
                check_enrolled(state, str(checked.key), checked.row)
                check_apart(str(checked.key), checked.row, seen)
            yield checked
    except (PackingError, FieldError) as error:
        raise RefusedError(Reason.INVALID, f"a row of the backup: {error}") from error


def _check(change: Change) -> Change:
    table, key, row = change
    if table is Table.META:
        check = _META.get(str(key))
        if check is None:
            raise FieldError(f"META {key!r:.40} is not restored")
        return Change(table, key, check(row))
    if table not in _ROWS:
        raise FieldError(f"{table.name} is not restored")
    return Change(table, _KEYS[table](key), _ROWS[table](row))
