"""What one peer and one instance may have at most.

The defaults are part of the state machine: all servers must agree, so another default is
another version of it.
"""

from typing import Final

from wgmap_cluster.fsm.commands import MAX_PREFIXES
from wgmap_cluster.fsm.results import Reason, RefusedError
from wgmap_cluster.fsm.rows import Change, PeerRow, Table
from wgmap_cluster.fsm.state import State

PEER_LIMIT: Final = MAX_PREFIXES  # prefixes, and mappings at one time
INSTANCE_MAPPINGS: Final = 1_000_000


def peer_limit(row: PeerRow) -> int:
    """Return how many prefixes, and how many mappings, a peer may have."""
    return row.limit or PEER_LIMIT


def instance_limit(state: State, instance: int) -> int:
    """Return how many mappings an instance may have."""
    row = state.instances.get(instance)
    return (row.max_mappings if row is not None else 0) or INSTANCE_MAPPINGS


def check_mappings(
    state: State, name: str, instance: int, standing: int, changes: list[Change]
) -> None:
    """Refuse a register that adds mappings beyond a limit; one that adds none always passes."""
    added = 0
    for change in changes:
        if change.table is Table.MAPPINGS:
            added += (change.row is not None) - (change.key in state.mappings)
    if added <= 0:
        return
    most = peer_limit(state.peers[name])
    if standing > most:
        raise RefusedError(Reason.LIMIT, f"{name}: {standing} mappings, its limit is {most}")
    most = instance_limit(state, instance)
    if state.size(instance) + added > most:
        raise RefusedError(Reason.LIMIT, f"{name}: instance {instance} is limited to {most}")
