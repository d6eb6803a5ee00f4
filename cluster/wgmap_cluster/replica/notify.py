"""The answer to a Map-Register: a Map-Notify with the records as they were accepted."""

import ipaddress
from collections.abc import Iterator

from wgmap.addresses import prefix_from_bytes
from wgmap.lisp.auth import sign_like
from wgmap.lisp.codec import encode
from wgmap.lisp.messages import Eid, Locator, LocatorForm, MapNotify, Record
from wgmap_cluster.fsm.results import Registered, Taken
from wgmap_cluster.fsm.rows import LocatorRow, MappingRow
from wgmap_cluster.replica.admission import Admitted


def answer(admitted: Admitted, registered: Registered) -> bytes | None:
    """Return the Map-Notify for a register (RFC 9301, section 5.7), None where none is wanted.

    It carries what stands after the register: the nonce of the register, or the stored one
    where that was newer, the accepted records with their versions, and what was withdrawn with
    TTL 0. It is authenticated in the kind of the register.
    """
    if not admitted.message.want_notify:
        return None
    notify = MapNotify(
        nonce=registered.nonce if registered.taken is Taken.OLDER else admitted.message.nonce,
        records=tuple(_records(admitted, registered)),
        xtr=admitted.message.xtr,
    )
    datagram = encode(notify)
    if admitted.row.lisp_key:
        return sign_like(datagram, admitted.message.authentication, admitted.row.lisp_key)
    return datagram


def _records(admitted: Admitted, registered: Registered) -> Iterator[Record]:
    standing = dict(registered.mappings)
    instance = admitted.command.instance
    if registered.taken is Taken.OLDER:
        asked = list(standing)
    else:
        asked = [offer.prefix for offer in admitted.command.offers]
    plain = not admitted.command.key
    for prefix in asked:
        eid = Eid(prefix_from_bytes(prefix), instance)
        mapping = standing.get(prefix)
        yield Record(eid, ttl_min=0) if mapping is None else _record(eid, mapping, plain=plain)


def _record(eid: Eid, mapping: MappingRow, *, plain: bool) -> Record:
    locators = tuple(_locator(row, mapping.key, plain=plain) for row in mapping.locators)
    return Record(
        eid, locators, mapping.ttl_min, authoritative=True, version=0 if plain else mapping.version
    )


def _locator(row: LocatorRow, key: bytes, *, plain: bool) -> Locator:
    return Locator(
        address=ipaddress.ip_address(row.address),
        port=row.port,
        key=None if plain else key,
        priority=row.priority,
        weight=row.weight,
        private_address=ipaddress.ip_address(row.private_address) if row.private_address else None,
        form=LocatorForm.PLAIN if plain else LocatorForm.WGMAP,
    )
