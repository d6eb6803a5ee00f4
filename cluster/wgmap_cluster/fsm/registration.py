"""Decisions about registrations: registers, peers seen, the clock and expiry."""

from collections.abc import Iterable, Iterator
from typing import Final

from wgmap.addresses import prefix_from_bytes
from wgmap_cluster.fsm.commands import Advance, Expire, Offer, Register, Seen
from wgmap_cluster.fsm.limits import check_mappings
from wgmap_cluster.fsm.mappings import withdraw
from wgmap_cluster.fsm.prefixes import PrefixKey
from wgmap_cluster.fsm.results import Applied, Done, Reason, RefusedError, Registered, Taken
from wgmap_cluster.fsm.rows import (
    Change,
    MappingRow,
    Meta,
    PeerRow,
    RegistrationRow,
    Table,
)
from wgmap_cluster.fsm.state import State
from wgmap_cluster.fsm.versions import next_version

GRACE_TTLS: Final = 3  # a peer not seen for so many of its TTLs has left


def expires_at(row: RegistrationRow) -> float:
    """Return when a registration's grace is over, in seconds of the replicated clock."""
    return row.seen + GRACE_TTLS * 60.0 * row.ttl_min


def find_owner(state: State, command: Register) -> tuple[str, PeerRow]:
    """Return the peer that registers; raises RefusedError where it may not do so.

    A prefix belongs to the peer with the longest enrolled prefix over it. Called as well before
    a register is proposed: what is refused now would be refused then.
    """
    name = state.peer_by_address(command.control_address)
    if name is None:
        raise RefusedError(Reason.UNKNOWN_PEER)
    row = state.peers[name]
    if row.revoked:
        raise RefusedError(Reason.REVOKED, name)
    prefixes = [offer.prefix for offer in command.offers]
    if len(set(prefixes)) != len(prefixes):
        raise RefusedError(Reason.INVALID, f"{name}: one prefix twice")
    if any(offer.ttl_min and not offer.locators for offer in command.offers):
        raise RefusedError(Reason.INVALID, f"{name}: a mapping without locators")
    if row.control_key and not command.key and any(offer.ttl_min for offer in command.offers):
        raise RefusedError(Reason.INVALID, f"{name}: no data key")
    for prefix in prefixes:
        owner = state.owner((command.instance, prefix))
        if owner is None or owner[1] != name:
            detail = f"{name}: {prefix_from_bytes(prefix)} in instance {command.instance}"
            raise RefusedError(Reason.NOT_OWNER, detail)
    return name, row


def classify(state: State, name: str, row: PeerRow, command: Register) -> Taken:
    """Tell by its nonce what a register means.

    Nonces of plain LISP clients (those with a LISP key) are not in order: theirs take effect
    in the order of commit.
    """
    last = state.registrations.get(name)
    if last is None:
        return Taken.APPLIED
    if row.lisp_key:
        in_force = is_in_force(state, name, row, command)
        return Taken.REPEATED if in_force else Taken.APPLIED
    if command.nonce == last.nonce:
        return Taken.REPEATED if last.digest == command.digest() else Taken.OLDER
    return Taken.APPLIED if command.nonce > last.nonce else Taken.OLDER


def is_in_force(state: State, name: str, row: PeerRow, command: Register) -> bool:
    """Tell whether all that a register would set stands already (nothing has expired)."""
    changes, _ = _set_mappings(state, name, row, command)
    return not changes


def register(state: State, command: Register) -> Applied:
    """Take a register: replace the peer's mappings by what it offers."""
    name, row = find_owner(state, command)
    taken = classify(state, name, row, command)
    if taken is Taken.OLDER:
        stored = state.registrations[name]
        return Applied(Registered(name, taken, stored.nonce, _standing(state.held_by(name))))
    changes, standing = _set_mappings(state, name, row, command)
    check_mappings(state, name, command.instance, len(standing), changes)
    shortest = min((mapping.ttl_min for mapping in standing.values()), default=0)
    last = state.registrations.get(name)
    key = command.key or (last.key if last is not None else b"")
    record = RegistrationRow(command.nonce, command.digest(), state.clock, shortest, key)
    if last != record:
        changes.append(Change(Table.REGISTRATIONS, name, record))
    mappings = _standing(sorted(standing.items()))
    return Applied(Registered(name, taken, command.nonce, mappings), tuple(changes))


def seen(state: State, command: Seen) -> Applied:
    """Note that these peers repeated their register."""
    changes = tuple(_refreshed(state, command.peers))
    return Applied(Done(changed=bool(changes), count=len(changes)), changes)


def advance(state: State, command: Advance) -> Applied:
    """Set the replicated clock forward."""
    changes = tuple(_clock(state, command.clock))
    return Applied(Done(changed=bool(changes)), changes)


def expire(state: State, command: Expire) -> Applied:
    """Remove the mappings of peers whose grace is over; a peer seen meanwhile stays."""
    changes = list(_clock(state, command.clock))
    left = []
    for name in dict.fromkeys(command.peers):
        last = state.registrations.get(name)
        if last is not None and last.ttl_min and expires_at(last) <= command.clock:
            changes += withdraw(state, [key for key, _ in state.held_by(name)])
            changes.append(Change(Table.REGISTRATIONS, name, last._replace(ttl_min=0)))
            left.append(name)
    done = Done(changed=bool(changes), left=tuple(left), count=len(left))
    return Applied(done, tuple(changes))


def _standing(
    items: Iterable[tuple[PrefixKey, MappingRow]],
) -> tuple[tuple[bytes, MappingRow], ...]:
    return tuple((key[1], row) for key, row in items)


def _set_mappings(
    state: State, name: str, row: PeerRow, command: Register
) -> tuple[list[Change], dict[PrefixKey, MappingRow]]:
    """Return the changes to the peer's mappings and how these stand afterwards."""
    standing = dict(state.held_by(name))
    offered = {(command.instance, offer.prefix): offer for offer in command.offers}
    # A plain LISP client sends a register for each of its prefixes.
    gone = [] if row.lisp_key else [key for key in standing if key not in offered]
    gone += [key for key, offer in offered.items() if not offer.ttl_min and key in standing]
    changes = withdraw(state, gone)
    for key in gone:
        del standing[key]
    for key, offer in offered.items():
        if offer.ttl_min:
            mapping = _next_mapping(state, name, key, command.key, offer)
            if standing.get(key) != mapping:
                changes.append(Change(Table.MAPPINGS, key, mapping))
            standing[key] = mapping
    return changes, standing


def _next_mapping(
    state: State, name: str, key: PrefixKey, public_key: bytes, offer: Offer
) -> MappingRow:
    present = state.mappings.get(key)
    version = state.last_version(key) if present is None else present.version
    mapping = MappingRow(name, public_key, offer.locators, offer.ttl_min, version)
    if present == mapping:
        return mapping
    return mapping._replace(version=next_version(version))


def _refreshed(state: State, names: tuple[str, ...]) -> Iterator[Change]:
    for name in dict.fromkeys(names):
        last = state.registrations.get(name)
        if last is not None and last.seen < state.clock:
            yield Change(Table.REGISTRATIONS, name, last._replace(seen=state.clock))


def _clock(state: State, clock: float) -> Iterator[Change]:
    if clock > state.clock:
        yield Change(Table.META, Meta.CLOCK.value, clock)
