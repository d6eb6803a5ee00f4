"""Decisions about instances: virtual networks with an address space of their own."""

import hashlib

import msgpack

from wgmap.addresses import prefix_from_bytes
from wgmap_cluster.fsm.audit import Entry, record
from wgmap_cluster.fsm.commands import SetInstance
from wgmap_cluster.fsm.prefixes import reason_not_enrollable
from wgmap_cluster.fsm.results import Applied, Done, Reason, RefusedError
from wgmap_cluster.fsm.rows import Change, InstanceRow, Table
from wgmap_cluster.fsm.state import State

MAX_INSTANCES = 4096  # with values of their own
_TAG_BYTES = 6  # what a JavaScript number holds whole


def tag(row: InstanceRow) -> int:
    """Return a number that stands for the values of an instance: other values have another one."""
    digest = hashlib.sha256(msgpack.packb([row.overlay, row.max_mappings])).digest()
    return int.from_bytes(digest[:_TAG_BYTES])


def set_instance(state: State, command: SetInstance) -> Applied:
    """Set an instance's overlay and limit; one that has only defaults needs no row."""
    old = state.instances.get(command.instance, InstanceRow())
    if command.if_tag not in (None, tag(old)):
        raise RefusedError(Reason.CHANGED, f"instance {command.instance} is at tag {tag(old)}")
    row = old
    if command.overlay is not None:
        _check_overlay(state, command.overlay)
        row = row._replace(overlay=tuple(sorted(set(command.overlay))))
    if command.max_mappings is not None:
        row = row._replace(max_mappings=command.max_mappings)
    if row == old:
        return Applied(Done(changed=False))
    if command.instance not in state.instances and len(state.instances) >= MAX_INSTANCES:
        raise RefusedError(Reason.LIMIT, f"more than {MAX_INSTANCES} instances")
    stored = None if row == InstanceRow() else row
    changes = (
        Change(Table.INSTANCES, command.instance, stored),
        *record(state, command.origin, Entry("set instance", str(command.instance), _text(row))),
    )
    return Applied(Done(), changes)


def _check_overlay(state: State, overlay: tuple[bytes, ...]) -> None:
    reserved = tuple(state.reserved())
    for prefix in overlay:
        reason = reason_not_enrollable(prefix, reserved)
        if reason is not None:
            raise RefusedError(Reason.PREFIX_RESERVED, reason)


def _text(row: InstanceRow) -> str:
    overlay = " ".join(str(prefix_from_bytes(each)) for each in row.overlay)
    return f"overlay {overlay or 'of the cluster'}, most mappings {row.max_mappings or 'default'}"
