"""What changes of the tables mean for those who were told of the former state."""

from dataclasses import dataclass, field
from typing import NamedTuple

from wgmap_cluster.fsm.rows import Change, MappingRow, PeerRow, RevocationRow, Row, Table
from wgmap_cluster.responder.mappings import Place
from wgmap_cluster.responder.table import Tables
from wgmap_cluster.responder.written import record_bytes

SERVER_SET = ""  # the subject that is no peer: the map servers themselves


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
