"""From a Map-Request to the records and datagrams that answer it."""

from dataclasses import dataclass, field
from typing import TypeAlias

from wgmap.lisp.codec import map_reply_header
from wgmap.lisp.messages import MapRequest, Record
from wgmap_cluster.feed import Source
from wgmap_cluster.responder import quick
from wgmap_cluster.responder.answers import Answers, Encoded, join, plain
from wgmap_cluster.responder.follower import Follower
from wgmap_cluster.responder.mappings import Mapping, Peer

MAX_COUNT = 255  # records of one message
MAX_REPLY = 32 * 1024  # bytes; a longer answer travels in several datagrams


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that may be answered: by whom, and where the answer goes."""

    requester: Peer
    reply_to: Source
    request: MapRequest

    @property
    def refresh(self) -> bool:
        """Whether it wants what stood when it came, or later."""
        return self.request.smr_invoked


@dataclass(slots=True)
class Found:
    """An answer, and what it was about."""

    datagrams: list[bytes] = field(default_factory=list)
    owners: dict[Peer, int] = field(default_factory=dict)  # -> TTL in minutes
    missed: list[tuple[int, bytes]] = field(default_factory=list)
    servers: bool = False  # the server set was asked for


# The answer to a usual request, whose mapping it carries (None: nobody's), and its TTL in minutes.
Quick: TypeAlias = tuple[bytes, Peer | None, int]


class Lookup:
    """Answers requests from the tables."""

    def __init__(self, follower: Follower, answers: Answers) -> None:
        self._follower = follower
        self._answers = answers

    def answer(self, asked: Asked, *, fresh: bool) -> Found:
        """Return the Map-Replies to a request, authoritative ones if ``fresh``."""
        found = Found()
        if asked.requester.kind.takes_keys:
            parts = self._whole(asked.request, found, fresh)
        else:
            parts = self._plain(asked.request, found, fresh)
        for count, data in _packets(parts):
            found.datagrams.append(map_reply_header(asked.request.nonce, count) + data)
        return found

    def quickly(self, requester: Peer, asked: quick.Question, *, fresh: bool) -> Quick | None:
        """Answer the usual request with few operations; None: the answer is not simple."""
        nonce, address, _, _ = asked
        if self._answers.is_control(address) or not requester.kind.takes_keys:
            return None
        mapping = self._follower.tables.match(0, address)
        if mapping is None:
            nobody = self._answers.negative_bytes(0, address, fresh=fresh)
            return quick.reply(nonce, nobody.count, nobody.data), None, 0
        owner = mapping.peer
        if fresh and owner.kind.has_one_host:  # as most have: its record is all
            return quick.reply(nonce, 1, mapping.record), owner, mapping.ttl_min
        records = self._answers.of_peer(owner)
        encoded = records.encoded(fresh=fresh)
        if records.left_out or len(encoded.data) > MAX_REPLY:
            return None
        return quick.reply(nonce, encoded.count, encoded.data), owner, mapping.ttl_min

    def _whole(self, request: MapRequest, found: Found, fresh: bool) -> list[list[Encoded]]:
        """Return every record of each peer that is asked for, to be sent together."""
        parts: list[Encoded] = []
        for instance, address in _asked(request):
            match = self._match(instance, address, found)
            if match is None:
                parts.append(join(self._unmapped(instance, address, found), authoritative=fresh))
                continue
            owner = match.peer
            records = self._answers.of_peer(owner)
            if match in records.left_out:
                parts.append(join([self._answers.part(match, address)], authoritative=fresh))
            if owner not in found.owners:
                parts.append(records.encoded(fresh=fresh))
            found.owners[owner] = max(match.ttl_min, found.owners.get(owner, 0))
        return [parts]

    def _plain(self, request: MapRequest, found: Found, fresh: bool) -> list[list[Encoded]]:
        """Return one plain record for each EID, each to be sent alone."""
        records: list[Record] = []
        for instance, address in _asked(request):
            match = self._match(instance, address, found)
            if match is None:
                records += self._unmapped(instance, address, found)
            else:
                found.owners[match.peer] = match.ttl_min
                records.append(self._answers.part(match, address))
        return [[join([plain(record)], authoritative=fresh)] for record in records]

    def _match(self, instance: int, address: bytes, found: Found) -> Mapping | None:
        if self._answers.is_control(address):
            found.servers = True
            return None
        return self._follower.tables.match(instance, address)

    def _unmapped(self, instance: int, address: bytes, found: Found) -> list[Record]:
        servers = self._answers.servers(instance) if self._answers.is_control(address) else []
        if servers:
            return servers
        found.missed.append((instance, address))
        return [self._answers.negative(instance, address)]


def _asked(request: MapRequest) -> list[tuple[int, bytes]]:
    return [
        (record.eid.instance, record.eid.prefix.network_address.packed)
        for record in request.records
    ]


def _packets(parts: list[list[Encoded]]) -> list[tuple[int, bytes]]:
    """Join records into as few messages as they fit in; no list shares one with another."""
    packets: list[tuple[int, bytes]] = []
    for together in parts:
        count, data = 0, b""
        for part in together:
            full = count + part.count > MAX_COUNT or len(data) + len(part.data) > MAX_REPLY
            if count and full:
                packets.append((count, data))
                count, data = 0, b""
            count += part.count
            data += part.data
        packets.append((count, data))
    return packets
