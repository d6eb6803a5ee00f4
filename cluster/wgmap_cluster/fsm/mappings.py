"""How mappings go: their versions stay behind, so that the next one is newer."""

from collections.abc import Iterable

from wgmap_cluster.fsm.prefixes import PrefixKey, covers
from wgmap_cluster.fsm.rows import Change, PeerRow, Table
from wgmap_cluster.fsm.state import State
from wgmap_cluster.fsm.versions import NO_VERSION, newest


def withdraw(state: State, keys: Iterable[PrefixKey]) -> list[Change]:
    """Remove mappings; the newest version is kept under the enrolled prefix that held them.

    One number per enrolled prefix bounds what is kept, however many more-specific prefixes come
    and go; a mapping that comes back starts above it.
    """
    changes = []
    left_behind: dict[PrefixKey, int] = {}
    for key in keys:
        owner = state.owner(key)
        wide = owner[0] if owner is not None else key
        before = left_behind.get(wide, state.versions.get(wide, NO_VERSION))
        left_behind[wide] = newest(state.mappings[key].version, before)
        changes.append(Change(Table.MAPPINGS, key, None))
    changes += [Change(Table.VERSIONS, wide, version) for wide, version in left_behind.items()]
    return changes


def lost_to(state: State, name: str, row: PeerRow) -> list[Change]:
    """Remove the mappings of others that lie inside prefixes that ``name`` now owns.

    A prefix belongs to the peer with the longest enrolled prefix over it, so enrolling a
    more-specific prefix takes it from the peer that has the wider one.
    """
    gone: dict[PrefixKey, None] = {}
    for prefix in row.prefixes:
        for other in set_in_order(state.owners_over((row.instance, prefix))):
            if other != name:
                gone |= dict.fromkeys(_taken(state, other, (row.instance, prefix)))
    return withdraw(state, gone)


def set_in_order(names: Iterable[str]) -> list[str]:
    """Drop repetitions and keep the order, for results must not depend on hashing."""
    return list(dict.fromkeys(names))


def _taken(state: State, other: str, new: PrefixKey) -> Iterable[PrefixKey]:
    for key, _ in state.held_by(other):
        owner = state.owner(key)
        inside = key[0] == new[0] and covers(new[1], key[1])
        if inside and (owner is None or owner[0][1][0] < new[1][0]):
            yield key
