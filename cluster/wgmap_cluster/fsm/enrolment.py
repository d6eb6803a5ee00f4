"""Decisions about the cluster itself: bootstrap, servers, enrolment and revocation.

Every function reads the state, raises RefusedError or returns what shall change.
"""

import ipaddress
from collections.abc import Iterable, Iterator

from wgmap.addresses import CONTROL_PREFIX_LENGTH, control_address, prefix_from_bytes
from wgmap_cluster.fsm.audit import Entry, record
from wgmap_cluster.fsm.commands import (
    MAX_SERVERS,
    Bootstrap,
    Enrol,
    EnrolMany,
    NewPeer,
    RemoveServer,
    Revoke,
    SetPeer,
    SetServer,
)
from wgmap_cluster.fsm.limits import peer_limit
from wgmap_cluster.fsm.mappings import lost_to, withdraw
from wgmap_cluster.fsm.prefixes import reason_not_enrollable
from wgmap_cluster.fsm.results import Applied, Done, Reason, RefusedError
from wgmap_cluster.fsm.rows import Change, Meta, PeerRow, RevocationRow, ServerRow, Table
from wgmap_cluster.fsm.state import State


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
        *record(state, command.origin, Entry("bootstrap", command.cluster_id.hex(), overlay)),
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
        *record(state, command.origin, Entry("set server", command.name)),
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
        *record(state, command.origin, Entry("remove server", command.name)),
    )
    return Applied(Done(), changes)


def enrol(state: State, command: Enrol) -> Applied:
    """Let a peer in, once."""
    row, new = _admit(state, command.peer())
    if not new:
        return Applied(Done(changed=False, peer=row))
    changes = (
        *lost_to(state, command.name, row),
        Change(Table.PEERS, command.name, row),
        *record(state, command.origin, Entry("enrol", command.name, _describe(row))),
    )
    return Applied(Done(peer=row), changes)


def enrol_many(state: State, command: EnrolMany) -> Applied:
    """Let all of these peers in, or none; the refusal says which of them is the first at fault."""
    rows: dict[str, PeerRow] = {}
    seen: set[object] = set()
    for position, peer in enumerate(command.peers):
        try:
            row, new = _admit(state, peer)
            check_apart(peer.name, row, seen)
        except RefusedError as error:
            refused = error.refused
            raise RefusedError(refused.reason, refused.detail, position) from error
        if new:
            rows[peer.name] = row
    changes: dict[Change, None] = {}
    for name, row in rows.items():
        changes |= dict.fromkeys(lost_to(state, name, row))
    entries = [Entry("enrol", name, _describe(row)) for name, row in rows.items()]
    peers = [Change(Table.PEERS, name, row) for name, row in rows.items()]
    everything = (*changes, *peers, *record(state, command.origin, *entries))
    return Applied(Done(changed=bool(rows), count=len(rows)), everything)


def check_apart(name: str, row: PeerRow, seen: set[object]) -> None:
    """Refuse what an earlier peer of the same command has; adds to ``seen``."""
    wanted: list[tuple[Reason, object]] = [(Reason.NAME_TAKEN, name)]
    if row.control_key:
        wanted.append((Reason.KEY_TAKEN, row.control_key))
    wanted.append((Reason.ADDRESS_TAKEN, row.control_address))
    wanted += [(Reason.PREFIX_TAKEN, (row.instance, each)) for each in row.prefixes]
    for each in wanted:
        if each in seen:
            raise RefusedError(each[0], f"{name}: by an earlier peer of the same batch")
    seen.update(wanted)


def _admit(state: State, peer: NewPeer) -> tuple[PeerRow, bool]:
    """Return the row of a peer that may be enrolled, and whether it is not there yet."""
    row = _new_row(state, peer)
    present = state.peers.get(peer.name)
    if present is not None and present._replace(revision=row.revision) == row:
        return present, False
    if present is not None:
        why = "by a revoked peer" if present.revoked else "by a peer with other values"
        raise RefusedError(Reason.NAME_TAKEN, f"{peer.name}: {why}")
    check_enrolled(state, peer.name, row)
    return row, True


def set_peer(state: State, command: SetPeer) -> Applied:
    """Change what a peer may register, from where, its control key, its limit or its name."""
    old = _active(state, command.name)
    _require_revision(command, old)
    name = command.name if command.new_name is None else command.new_name
    if name != command.name and name in state.peers:
        raise RefusedError(Reason.NAME_TAKEN, name)
    row = _changed_row(state, command, old)
    if row == old and name == command.name:
        return Applied(Done(changed=False, peer=row))
    row = row._replace(revision=old.revision + 1)
    check_enrolled(state, command.name, row)
    entry = Entry("set", command.name, _difference(command.name, name, old, row))
    changes = [
        *_moved(state, command.name, name, old, row),
        *record(state, command.origin, entry),
    ]
    return Applied(Done(peer=row), tuple(changes))


def check_enrolled(state: State, name: str, row: PeerRow) -> None:
    """Refuse a row that contradicts the servers or other peers."""
    _check_identity(state, name, row)
    _check_prefixes(state, name, row)


def _moved(state: State, old_name: str, name: str, old: PeerRow, row: PeerRow) -> Iterator[Change]:
    """Yield what becomes of a peer and what it registered, under its (new) name."""
    rekeyed = row.control_key != old.control_key
    kept = [] if rekeyed else row.prefixes
    held = state.held_by(old_name)
    gone = {key for key, _ in held if _outside(state, key, old, kept)}
    yield from withdraw(state, sorted(gone))
    yield from lost_to(state, old_name, row)
    last = state.registrations.get(old_name)
    if name != old_name:
        yield Change(Table.PEERS, old_name, None)
    yield Change(Table.PEERS, name, row)
    if name != old_name:
        for key, mapping in held:
            if key not in gone:
                yield Change(Table.MAPPINGS, key, mapping._replace(peer=name))
    if last is not None and (rekeyed or name != old_name):
        yield Change(Table.REGISTRATIONS, old_name, None)
        if not rekeyed:
            yield Change(Table.REGISTRATIONS, name, last)


def revoke(state: State, command: Revoke) -> Applied:
    """Shut a peer out; agents learn the number of the revocation."""
    row = state.peers.get(command.name)
    if row is None:
        raise RefusedError(Reason.UNKNOWN_PEER, command.name)
    if row.revoked:
        number = next(n for n, each in state.revocations.items() if each.peer == command.name)
        return Applied(Done(changed=False, peer=row, revocation=number))
    _require_revision(command, row)
    number = state.revocation + 1
    registration = state.registrations.get(command.name)
    key = registration.key if registration is not None else b""
    row = row._replace(revoked=True, revision=row.revision + 1)
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
    changes += record(state, command.origin, Entry("revoke", command.name, f"number {number}"))
    return Applied(Done(peer=row, revocation=number), tuple(changes))


def _require_revision(command: SetPeer | Revoke, row: PeerRow) -> None:
    if command.if_revision not in (None, row.revision):
        raise RefusedError(Reason.CHANGED, f"{command.name} is at revision {row.revision}")


def _active(state: State, name: str) -> PeerRow:
    row = state.peers.get(name)
    if row is None:
        raise RefusedError(Reason.UNKNOWN_PEER, name)
    if row.revoked:
        raise RefusedError(Reason.REVOKED, name)
    return row


def _new_row(state: State, peer: NewPeer) -> PeerRow:
    if bool(peer.control_key) == bool(peer.control_address):
        raise RefusedError(Reason.INVALID, "either a control key or a control address")
    address = peer.control_address or _derive(state, peer.control_key)
    return PeerRow(
        peer.control_key,
        address,
        peer.instance,
        tuple(sorted(set(peer.prefixes))),
        tuple(sorted(set(peer.endpoint_allow))),
        peer.lisp_key,
        peer.lisp_auth,
        limit=peer.limit,
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
    if command.limit is not None:
        row = row._replace(limit=command.limit)
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
    if len(row.prefixes) > peer_limit(row):
        detail = f"{name}: {len(row.prefixes)} prefixes, its limit is {peer_limit(row)}"
        raise RefusedError(Reason.LIMIT, detail)
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


def _difference(old_name: str, name: str, old: PeerRow, row: PeerRow) -> str:
    """Say what was changed, without any secret."""
    said = [f"renamed to {name}"] if name != old_name else []
    if row.prefixes != old.prefixes:
        said.append(f"prefixes {' '.join(_text(row.prefixes)) or 'none'}")
    if row.endpoint_allow != old.endpoint_allow:
        said.append(f"endpoints {' '.join(_text(row.endpoint_allow)) or 'none'}")
    if row.control_key != old.control_key:
        said.append(f"control key, now at {ipaddress.ip_address(row.control_address)}")
    if (row.lisp_key, row.lisp_auth) != (old.lisp_key, old.lisp_auth):
        said.append("LISP authentication")
    if row.limit != old.limit:
        said.append(f"limit {peer_limit(row)}")
    return "; ".join(said)
