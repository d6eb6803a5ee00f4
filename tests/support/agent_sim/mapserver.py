"""A simple, faithful model of the map servers: one log, answers and pushes per server.

A register takes effect in the order of its nonces and reaches every server that lives; every
server pushes by itself, and repeats a push until it is acknowledged.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address

from support.agent_sim.world import World
from wgmap.addresses import IPNetwork
from wgmap.lisp import codec
from wgmap.lisp.messages import (
    Action,
    Eid,
    MapNotify,
    MapNotifyAck,
    MapRegister,
    MapReply,
    MapRequest,
    Record,
)
from wgmap_agent.engine.types import CONTROL_PREFIX

PUSH_FIRST, PUSH_CAP, PUSHES = 0.05, 3.0, 8
COMMIT_S = 0.001  # beside two round trips between servers


@dataclass(slots=True)
class Registered:
    """A committed mapping."""

    owner: IPv6Address  # control address
    record: Record
    nonce: int


@dataclass(slots=True)
class Log:
    """What is committed, the same for every server, and who may register what."""

    mappings: dict[IPNetwork, Registered] = field(default_factory=dict)
    versions: dict[IPNetwork, int] = field(default_factory=dict)
    nonces: dict[IPv6Address, int] = field(default_factory=dict)
    enrolled: dict[IPv6Address, tuple[IPNetwork, ...]] = field(default_factory=dict)
    quorum: bool = True
    servers: tuple[Record, ...] = ()  # the server set, as it is answered

    def register(self, owner: IPv6Address, message: MapRegister) -> list[IPNetwork]:
        """Apply a register; returns the prefixes whose mapping changed."""
        allowed = self.enrolled.get(owner, ())
        if any(record.eid.prefix not in allowed for record in message.records):
            return []
        if message.nonce <= self.nonces.get(owner, 0):
            return []
        self.nonces[owner] = message.nonce
        changed = []
        for record in message.records:
            prefix = record.eid.prefix
            known = self.mappings.get(prefix)
            if known is None or known.record.locators != record.locators:
                self.versions[prefix] = self.versions.get(prefix, 0) % 4095 + 1
                changed.append(prefix)
            stored = replace(record, version=self.versions[prefix])
            self.mappings[prefix] = Registered(owner, stored, message.nonce)
        return changed

    def of(self, owner: IPv6Address) -> tuple[Record, ...]:
        """Return every record of a peer."""
        return tuple(m.record for m in self.mappings.values() if m.owner == owner)

    def find(self, prefix: IPNetwork) -> Registered | None:
        """Find the longest mapping around a prefix."""
        address = prefix.network_address
        found = [m for p, m in self.mappings.items() if address in p]
        return max(found, key=lambda m: m.record.eid.prefix.prefixlen, default=None)


@dataclass(slots=True)
class Push:
    """A push that is repeated until it is acknowledged."""

    destination: IPv6Address
    datagram: bytes
    wait: float = PUSH_FIRST
    tries: int = 0


class MapServer:
    """One server. ``send(address, kind, datagram)`` goes to an agent."""

    def __init__(
        self,
        world: World,
        name: str,
        log: Log,
        send: Callable[[IPv6Address, str, bytes], None],
    ) -> None:
        self.world, self.name, self.log = world, name, log
        self._send = send
        self.dead = False
        self.peers: list[MapServer] = []
        self._asked: dict[IPNetwork, set[IPv6Address]] = {}
        self._missed: dict[IPNetwork, set[IPv6Address]] = {}  # who was told that nobody has it
        self._pushes: dict[tuple[IPv6Address, int], Push] = {}

    def datagram(self, source: IPv6Address, data: bytes) -> None:
        """Take in a datagram from an agent's control address."""
        if self.dead or source not in self.log.enrolled:
            return
        message = codec.decode(data)
        if isinstance(message, MapRequest):
            self._request(source, message)
        elif isinstance(message, MapRegister):
            self._register(source, message)
        elif isinstance(message, MapNotifyAck):
            self._pushes.pop((source, message.nonce), None)

    # ---------------------------------------------------------------------------------- answers

    def _request(self, source: IPv6Address, message: MapRequest) -> None:
        target = message.records[0].eid
        if target.prefix == CONTROL_PREFIX:
            self._answer_servers(source, message.nonce)
            return
        found = self.log.find(target.prefix)
        if found is None:
            records: tuple[Record, ...] = (self._negative(target),)
            self._missed.setdefault(target.prefix, set()).add(source)
        else:
            records = tuple(self._served(record) for record in self.log.of(found.owner))
            for record in records:
                self._asked.setdefault(record.eid.prefix, set()).add(source)
        reply = codec.encode(MapReply(message.nonce, records))
        self._send(source, "reply", reply)
        if found is not None and found.owner != source:
            for record in self.log.of(source):  # who is told once is told of changes
                self._asked.setdefault(record.eid.prefix, set()).add(found.owner)
            self.push(found.owner, self.log.of(source))

    def _answer_servers(self, source: IPv6Address, nonce: int) -> None:
        if self.log.servers:
            records = tuple(self._served(record) for record in self.log.servers)
            self._send(source, "reply", codec.encode(MapReply(nonce, records)))

    def tell_servers(self, agents: Iterable[IPv6Address]) -> None:
        """Push the server set."""
        for agent in agents:
            self.push(agent, self.log.servers)

    def _served(self, record: Record) -> Record:
        return replace(record, authoritative=self.log.quorum)

    def _negative(self, eid: Eid) -> Record:
        return Record(eid, ttl_min=1, action=Action.SEND_MAP_REQUEST, authoritative=self.log.quorum)

    # -------------------------------------------------------------------------------- registers

    def _register(self, source: IPv6Address, message: MapRegister) -> None:
        stored = self.log.nonces.get(source, 0)
        if message.nonce <= stored:
            self._notify(source, stored)
        elif self.log.quorum:
            self.world.after(2 * self.world.delay + COMMIT_S, lambda: self._commit(source, message))

    def _commit(self, source: IPv6Address, message: MapRegister) -> None:
        changed = self.log.register(source, message)
        self._notify(source, self.log.nonces.get(source, 0))
        for server in (self, *self.peers):
            server.changed(source, changed)

    def _notify(self, source: IPv6Address, nonce: int) -> None:
        records = self.log.of(source)
        if records and not self.dead:
            self._send(source, "notify", codec.encode(MapNotify(nonce, records)))

    # ----------------------------------------------------------------------------------- pushes

    def changed(self, owner: IPv6Address, prefixes: list[IPNetwork]) -> None:
        """Push a changed mapping to those who asked for it, with or without success."""
        asked = {agent for prefix in prefixes for agent in self._asked.get(prefix, ())}
        for wide in prefixes:
            for one in [one for one in self._missed if one.network_address in wide]:
                asked |= self._missed.pop(one)
        for agent in sorted(asked - {owner}):
            self.push(agent, self.log.of(owner))

    def withdraw(self, prefix: IPNetwork, *, revoke: bool = False) -> None:
        """Drop a mapping and tell those who asked for it."""
        gone = self.log.mappings.pop(prefix)
        self.log.versions[prefix] = version = self.log.versions[prefix] % 4095 + 1
        locators = (
            tuple(replace(one, key_revoked=True) for one in gone.record.locators) if revoke else ()
        )
        record = replace(gone.record, ttl_min=0, locators=locators, version=version)
        for server in (self, *self.peers):
            for agent in sorted(server._asked.get(prefix, set()) - {gone.owner}):
                server.push(agent, (record,))

    def push(self, destination: IPv6Address, records: tuple[Record, ...]) -> None:
        """Send an unsolicited Map-Notify until it is acknowledged."""
        if self.dead or not records:
            return
        nonce = self.world.rng.getrandbits(64)
        push = Push(destination, codec.encode(MapNotify(nonce, records)))
        self._pushes[destination, nonce] = push
        self._repeat(nonce, push)

    def _repeat(self, nonce: int, push: Push) -> None:
        if self.dead or (push.destination, nonce) not in self._pushes:
            return
        if push.tries >= PUSHES:
            del self._pushes[push.destination, nonce]
            return
        push.tries += 1
        self._send(push.destination, "push", push.datagram)
        wait, push.wait = push.wait, min(push.wait * 2, PUSH_CAP)
        self.world.after(wait, lambda: self._repeat(nonce, push))
