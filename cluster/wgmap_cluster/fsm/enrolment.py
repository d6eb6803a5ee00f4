"""Decisions about the cluster itself: bootstrap, servers, enrolment and revocation.

Every function reads the state, raises RefusedError or returns what shall change.
"""

import ipaddress
from collections.abc import Iterable, Iterator

from wgmap.addresses import CONTROL_PREFIX_LENGTH, control_address, prefix_from_bytes
from wgmap_cluster.fsm.commands import (
    MAX_SERVERS,
    Bootstrap,
    Enrol,
    Origin,
    RemoveServer,
    Revoke,
    SetPeer,
    SetServer,
)
from wgmap_cluster.fsm.mappings import lost_to, withdraw
from wgmap_cluster.fsm.prefixes import reason_not_enrollable
from wgmap_cluster.fsm.results import Applied, Done, Reason, RefusedError
from wgmap_cluster.fsm.rows import (
    AuditRow,
    Change,
    Meta,
    PeerRow,
    RevocationRow,
    ServerRow,
    Table,
)
from wgmap_cluster.fsm.state import State

MAX_AUDIT_ROWS = 20_000  # the oldest goes


def bootstrap(state: State, command: Bootstrap) -> Applied:
    """Found the cluster."""
    if state.founded:
        raise RefusedError(Reason.NOT_EMPTY)
    control = prefix_from_bytes(command.control_prefix)
    if control.version != 6 or control.prefixlen != CONTROL_PREFIX_LENGTH:
        raise RefusedError(Reason.INVALID, f"the control prefix must be a /64, not {control}")
    _check_server_set(dict(command.servers), len(command.servers))
    overlay = " ".join(_text(command.overlay))
    changes = [
        Change(Table.META, Meta.CLUSTER_ID.value, command.cluster_id),
        Change(Table.META, Meta.CONTROL_PREFIX.value, str(control)),
        Change(Table.META, Meta.OVERLAY.value, overlay),
        *(Change(Table.SERVERS, name, row) for name, row in command.servers),
        *_audit(state, command.origin, "bootstrap", command.cluster_id.hex(), overlay),
    ]
    return Applied(Done(), tuple(changes))


def set_server(state: State, command: SetServer) -> Applied:
    """Add a server or change its keys and addresses."""
    if state.servers.get(command.name) == command.row:
        return Applied(Done(changed=False))
    servers = {**state.servers, command.name: command.row}
    _check_server_set(servers, len(servers))
    owner = state.peer_by_address(command.row.control_address)
    if owner is not None:
        raise RefusedError(Reason.ADDRESS_TAKEN, f"by peer {owner}")
    changes = (
        Change(Table.SERVERS, command.name, command.row),
        *_audit(state, command.origin, "set server", command.name, ""),
    )
    return Applied(Done(), changes)


def remove_server(state: State, command: RemoveServer) -> Applied:
    """Take a server out of the set."""
    if command.name not in state.servers:
        raise RefusedError(Reason.UNKNOWN_SERVER, command.name)
    if len(state.servers) == 1:
        raise RefusedError(Reason.INVALID, "the last server cannot be removed")
    changes = (
        Change(Table.SERVERS, command.name, None),
        *_audit(state, command.origin, "remove server", command.name, ""),
    )
    return Applied(Done(), changes)


def enrol(state: State, command: Enrol) -> Applied:
    """Let a peer in, once."""
    row = _new_row(state, command)
    present = state.peers.get(command.name)
    if present == row:
        return Applied(Done(changed=False, peer=row))
    if present is not None:
        why = "by a revoked peer" if present.revoked else "by a peer with other values"
        raise RefusedError(Reason.NAME_TAKEN, f"{command.name}: {why}")
    _check_identity(state, command.name, row)
    _check_prefixes(state, command.name, row)
    changes = (
        *lost_to(state, command.name, row),
        Change(Table.PEERS, command.name, row),
        *_audit(state, command.origin, "enrol", command.name, _describe(row)),
    )
    return Applied(Done(peer=row), changes)


def set_peer(state: State, command: SetPeer) -> Applied:
    """Change what a peer may register, from where, or its control key."""
    old = _active(state, command.name)
    row = _changed_row(state, command, old)
    if row == old:
        return Applied(Done(changed=False, peer=row))
    _check_identity(state, command.name, row)
    _check_prefixes(state, command.name, row)
    rekeyed = row.control_key != old.control_key
    kept = [] if rekeyed else row.prefixes
    gone = [key for key, _ in state.held_by(command.name) if _outside(state, key, old, kept)]
    changes = [
        *withdraw(state, gone),
        *lost_to(state, command.name, row),
        Change(Table.PEERS, command.name, row),
    ]
    if rekeyed and command.name in state.registrations:
        changes.append(Change(Table.REGISTRATIONS, command.name, None))
    changes += _audit(state, command.origin, "set", command.name, _describe(row))
    return Applied(Done(peer=row), tuple(changes))


def revoke(state: State, command: Revoke) -> Applied:
    """Shut a peer out; agents learn the number of the revocation."""
    row = state.peers.get(command.name)
    if row is None:
        raise RefusedError(Reason.UNKNOWN_PEER, command.name)
    if row.revoked:
        number = next(n for n, each in state.revocations.items() if each.peer == command.name)
        return Applied(Done(changed=False, peer=row, revocation=number))
    number = state.revocation + 1
    registration = state.registrations.get(command.name)
    key = registration.key if registration is not None else b""
    row = row._replace(revoked=True)
    changes = [
        *withdraw(state, [key for key, _ in state.held_by(command.name)]),
        Change(Table.PEERS, command.name, row),
        Change(
            Table.REVOCATIONS, number, RevocationRow(command.name, row.instance, row.prefixes, key)
        ),
        Change(Table.META, Meta.REVOCATIONS.value, number),
    ]
    if registration is not None:
        changes.append(Change(Table.REGISTRATIONS, command.name, None))
    changes += _audit(state, command.origin, "revoke", command.name, f"number {number}")
    return Applied(Done(peer=row, revocation=number), tuple(changes))


def _active(state: State, name: str) -> PeerRow:
    row = state.peers.get(name)
    if row is None:
        raise RefusedError(Reason.UNKNOWN_PEER, name)
    if row.revoked:
        raise RefusedError(Reason.REVOKED, name)
    return row


def _new_row(state: State, command: Enrol) -> PeerRow:
    if bool(command.control_key) == bool(command.control_address):
        raise RefusedError(Reason.INVALID, "either a control key or a control address")
    address = command.control_address or _derive(state, command.control_key)
    return PeerRow(
        command.control_key,
        address,
        command.instance,
        tuple(sorted(set(command.prefixes))),
        tuple(sorted(set(command.endpoint_allow))),
        command.lisp_key,
        command.lisp_auth,
    )


def _changed_row(state: State, command: SetPeer, row: PeerRow) -> PeerRow:
    if command.prefixes is not None:
        row = row._replace(prefixes=tuple(sorted(set(command.prefixes))))
    if command.endpoint_allow is not None:
        row = row._replace(endpoint_allow=tuple(sorted(set(command.endpoint_allow))))
    if command.control_key is not None:
        if not row.control_key:
            raise RefusedError(Reason.INVALID, "a peer enrolled by its address has no key")
        key = command.control_key
        row = row._replace(control_key=key, control_address=_derive(state, key))
    if command.lisp_key is not None:
        row = row._replace(lisp_key=command.lisp_key)
    if command.lisp_auth is not None:
        row = row._replace(lisp_auth=command.lisp_auth)
    return row


def _derive(state: State, key: bytes) -> bytes:
    prefix = state.control_prefix
    assert prefix is not None  # founded, or the command was refused before
    return control_address(prefix, key).packed


def _check_identity(state: State, name: str, row: PeerRow) -> None:
    holder = state.peer_by_key(row.control_key) if row.control_key else None
    if holder not in (None, name):
        raise RefusedError(Reason.KEY_TAKEN, f"by peer {holder}")
    holder = state.peer_by_address(row.control_address)
    if holder not in (None, name):
        raise RefusedError(Reason.ADDRESS_TAKEN, f"by peer {holder}")
    for server, its in state.servers.items():
        if row.control_address == its.control_address:
            raise RefusedError(Reason.ADDRESS_TAKEN, f"by server {server}")
        if row.control_key and row.control_key in (its.control_key, its.mesh_key):
            raise RefusedError(Reason.KEY_TAKEN, f"by server {server}")


def _check_prefixes(state: State, name: str, row: PeerRow) -> None:
    reserved = tuple(state.reserved())
    for prefix in row.prefixes:
        reason = reason_not_enrollable(prefix, reserved)
        if reason is not None:
            raise RefusedError(Reason.PREFIX_RESERVED, reason)
        owner = state.owner((row.instance, prefix))
        if owner is not None and owner[0][1] == prefix and owner[1] != name:
            raise RefusedError(
                Reason.PREFIX_TAKEN, f"{prefix_from_bytes(prefix)} by peer {owner[1]}"
            )


def _outside(state: State, key: tuple[int, bytes], old: PeerRow, kept: Iterable[bytes]) -> bool:
    """Whether the enrolled prefix under which a mapping lies is not kept."""
    owner = state.owner(key)
    return owner is None or owner[0][1] not in kept or key[0] != old.instance


def _check_server_set(servers: dict[str, ServerRow], count: int) -> None:
    if len(servers) != count:
        raise RefusedError(Reason.INVALID, "two servers with one name")
    if count > MAX_SERVERS:
        raise RefusedError(Reason.LIMIT, f"more than {MAX_SERVERS} servers")
    for column in ("mesh_key", "control_key", "mesh_address", "control_address"):
        if len({getattr(row, column) for row in servers.values()}) != count:
            raise RefusedError(Reason.INVALID, f"two servers with one {column}")


def _text(prefixes: Iterable[bytes]) -> list[str]:
    return [str(prefix_from_bytes(prefix)) for prefix in prefixes]


def _describe(row: PeerRow) -> str:
    address = ipaddress.ip_address(row.control_address)
    return f"instance {row.instance} at {address}: {' '.join(_text(row.prefixes))}"


def _audit(
    state: State, origin: Origin, action: str, subject: str, detail: str
) -> Iterator[Change]:
    number = int(state.meta.get(Meta.AUDITED, 0)) + 1
    row = AuditRow(
        state.clock, origin.wall, origin.server, origin.operator, action, subject, detail
    )
    yield Change(Table.META, Meta.AUDITED.value, number)
    yield Change(Table.AUDIT, number, row)
    if number > MAX_AUDIT_ROWS:
        yield Change(Table.AUDIT, number - MAX_AUDIT_ROWS, None)
