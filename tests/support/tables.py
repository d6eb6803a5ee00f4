"""Rows of a small network, and the service that serves it, for tests of the responder."""

import ipaddress
import random

from wgmap.addresses import prefix_to_bytes
from wgmap.lisp.codec import decode, encode
from wgmap.lisp.messages import Eid, MapNotify, MapNotifyAck, MapReply, MapRequest, RequestRecord
from wgmap_cluster.feed import BarrierDone, Changes, Lease, Rows, TableBegin, TableEnd
from wgmap_cluster.fsm.rows import (
    Change,
    LocatorRow,
    MappingRow,
    Meta,
    PeerRow,
    RevocationRow,
    ServerRow,
    Table,
)
from wgmap_cluster.responder.actions import Action, Again, Send, Tell
from wgmap_cluster.responder.announcer import PushSettings
from wgmap_cluster.responder.service import Service, Settings

CONTROL = ipaddress.IPv6Address("fd77:676d:6170::")
OVERLAY = "10.66.0.0/16 fd66::/64"
SETTINGS = Settings(PushSettings(CONTROL + 0xFFFF))


def packed(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def prefix(text: str) -> bytes:
    return prefix_to_bytes(ipaddress.ip_network(text))


def key(name: str) -> bytes:
    return name.encode().ljust(32, b".")


def control(name: str) -> str:
    """Return the control address of ``a7`` and the like: ...::7."""
    return str(CONTROL + int(name[1:]))


def enrolled(
    name: str,
    *prefixes: str,
    instance: int = 0,
    revoked: bool = False,
    plain: bool = False,
) -> Change:
    row = PeerRow(
        b"" if plain else key("control " + name),
        packed(control(name)),
        instance,
        tuple(map(prefix, prefixes or ("10.66.0.0/16",))),
        revoked=revoked,
    )
    return Change(Table.PEERS, name, row)


def mapped(
    name: str,
    where: str,
    *,
    instance: int = 0,
    version: int = 1,
    ttl_min: int = 60,
    rloc: str | None = None,
    plain: bool = False,
) -> Change:
    at = LocatorRow(packed(rloc or f"192.0.2.{name[1:]}"), 51820, 1, 100)
    row = MappingRow(name, b"" if plain else key(name), (at,), ttl_min, version)
    return Change(Table.MAPPINGS, (instance, prefix(where)), row)


def unmapped(where: str, instance: int = 0) -> Change:
    return Change(Table.MAPPINGS, (instance, prefix(where)), None)


def revocation(number: int, name: str, *prefixes: str) -> Change:
    row = RevocationRow(name, 0, tuple(map(prefix, prefixes)), key(name))
    return Change(Table.REVOCATIONS, number, row)


def server(name: str) -> Change:
    number = int(name[2:])
    row = ServerRow(
        key("mesh " + name),
        key("control " + name),
        packed(f"192.0.2.{number}"),
        51822,
        51821,
        packed(f"fd77::{number}"),
        (CONTROL + 0x1000 + number).packed,
    )
    return Change(Table.SERVERS, name, row)


META = (
    Change(Table.META, Meta.CLUSTER_ID, b"cluster-id-16-by"),
    Change(Table.META, Meta.OVERLAY, OVERLAY),
    Change(Table.META, Meta.CONTROL_PREFIX, f"{CONTROL}/64"),
)


class Network:
    """A service fed with rows, asked by its agents; time is what the test says."""

    def __init__(self, *rows: Change, settings: Settings = SETTINGS) -> None:
        self.now = 1000.0
        self.service = Service(settings, random.Random(1))
        self.service.attached(self.now)
        self.copy(1, *META, *rows)
        self.lease(3600.0)

    def copy(self, index: int, *rows: Change) -> list[Action]:
        self.service.feed(TableBegin(index), self.now)
        self.service.feed(Rows(rows), self.now)
        return self.service.feed(TableEnd(index), self.now)

    def lease(self, seconds: float) -> None:
        self.service.feed(Lease(self.now + seconds), self.now)

    def change(self, *changes: Change, index: int | None = None) -> list[Action]:
        index = self.service.index + 1 if index is None else index
        return self.service.feed(Changes(index, changes), self.now)

    def send(self, name: str, datagram: bytes) -> list[Action]:
        return self.service.datagram(datagram, (control(name), 4342), self.now)

    def barrier(self, number: int, *, ok: bool = True, later: float = 0.0) -> list[Action]:
        """Have a barrier come back, and serve what waited for it (so many seconds later)."""
        actions = self.service.feed(BarrierDone(number, ok=ok), self.now)
        again = [action for action in actions if isinstance(action, Again)]
        rest: list[Action] = [action for action in actions if action not in again]
        self.now += later
        for data, source, until in again:
            rest += self.service.serve(data, source, self.now, until)
        return rest

    def ask(self, name: str, *eids: str, instance: int = 0, refresh: bool = False) -> list[Action]:
        return self.send(name, request(*eids, instance=instance, refresh=refresh))

    def tick(self, seconds: float) -> list[Action]:
        """Let time pass, ticking whenever the service wants to."""
        end = self.now + seconds
        actions: list[Action] = []
        for _ in range(10_000):
            due = self.service.next_tick(self.now)
            if due is None or due > end:
                break
            self.now = max(self.now, due)
            actions += self.service.tick(self.now)
        self.now = end
        return actions

    def acknowledge(self, actions: list[Action]) -> None:
        """Have every agent acknowledge what it was pushed."""
        for address, notify in notifies(actions):
            ack = encode(MapNotifyAck(notify.nonce, notify.records))
            self.service.datagram(ack, (address, 4342), self.now)


def request(*eids: str, instance: int = 0, refresh: bool = False, nonce: int = 77) -> bytes:
    records = tuple(RequestRecord(Eid(ipaddress.ip_network(eid), instance)) for eid in eids)
    rloc = ipaddress.ip_address("fd77:676d:6170::1")
    return encode(MapRequest(nonce, (rloc,), records, smr_invoked=refresh))


def sent(actions: list[Action]) -> list[Send]:
    return [action for action in actions if isinstance(action, Send)]


def told(actions: list[Action]) -> list[Tell]:
    return [action for action in actions if isinstance(action, Tell)]


def replies(actions: list[Action]) -> list[MapReply]:
    messages = [decode(action.datagram) for action in sent(actions)]
    return [message for message in messages if isinstance(message, MapReply)]


def notifies(actions: list[Action]) -> list[tuple[str, MapNotify]]:
    messages = [(action.destination[0], decode(action.datagram)) for action in sent(actions)]
    return [(to, message) for to, message in messages if isinstance(message, MapNotify)]
