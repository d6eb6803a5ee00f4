"""A model of a WireGuard device: its handshakes and what goes wrong with them.

One handshake state a peer; an initiation received overwrites one's own; after an initiation or a
response none is sent to that peer for 5 s; an initiation from an unknown key is dropped without
a word, and so is one that follows another within 20 ms; 128 packets are staged; the socket of one
in user space takes no more at once than its buffer holds; endpoints roam with authenticated
packets; removing a peer forgets all of this. Cryptography is left out: whoever knows the peer's
key is who he says.

Several threads take handshake messages in, and whether an initiation is an old one is judged before
it is noted: one that comes twice at once can be taken twice (16 of 3000 by wireguard-go on two
processors; the kernel's code has the same two steps). It is answered twice then, and the device
forgets the session of its first answer, which is the one that the initiator uses. Here that happens
to each that comes twice within ``AT_ONCE_S``.
"""

import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from support.agent_sim.world import Datagram, World
from wgmap.addresses import Endpoint, IPAddress, IPNetwork
from wgmap.wg.device import DeviceState, PeerConfig, PeerState
from wgmap.wg.keys import PublicKey

REKEY_TIMEOUT = 5.0
REKEY_JITTER = 0.334
KEEPALIVE_TIMEOUT = 10.0
REJECT_AFTER = 180.0
MAX_ATTEMPTS = 18
STAGED = 128
FLOOD_S = 0.02
AT_ONCE_S = 0.001
DRAINED_S = 0.008  # how long a busy machine lets a receiver wait
STALE_SOURCE_S = 15.0
INIT_BYTES, RESPONSE_BYTES, DATA_BYTES = 148, 92, 32

_ids = itertools.count(1)


class Payload(NamedTuple):
    """A packet inside the tunnel."""

    source: IPAddress
    destination: IPAddress
    data: bytes
    label: str = ""  # what faults go by


class Message(NamedTuple):
    """What crosses the underlay."""

    kind: str  # init | response | data
    sender: PublicKey
    session: int  # of an initiation: the handshake
    payload: Payload | None = None
    answers: int = 0  # the handshake that a response is for


@dataclass(slots=True, eq=False)
class Peer:
    """A peer of a device."""

    key: PublicKey
    endpoint: Endpoint | None = None
    allowed: tuple[IPNetwork, ...] = ()
    keepalive: int = 0
    staged: list[Payload] = field(default_factory=list)
    initiated: int | None = None  # the handshake that waits for its response
    sent_at: float = float("-inf")  # last initiation or response
    taken_at: float = float("-inf")  # last initiation that was taken
    taken: int = 0  # its number: an older one is not taken any more
    attempts: int = 0
    retry: int = 0  # generation of the retransmit timer
    current: int | None = None
    following: int | None = None  # the responder's, until the first packet confirms it
    previous: int | None = None
    stood_at: float = float("-inf")
    handshake: float | None = None
    rx: int = 0
    tx: int = 0
    waiting: bool = False  # data went out and nothing came since
    wait: int = 0  # generation of that timer
    stale_until: float = float("-inf")


class Device:
    """A WireGuard interface."""

    def __init__(
        self,
        world: World,
        host: str,
        tunnel: str,
        key: PublicKey,
        endpoint: Callable[[int], Endpoint | None],
        deliver: Callable[[Payload], None],
    ) -> None:
        self.world, self.host, self.tunnel, self.key = world, host, tunnel, key
        self._endpoint = endpoint  # own underlay endpoint of an IP version
        self._deliver = deliver
        self.peers: dict[PublicKey, Peer] = {}
        self.dead = False
        self.buffer: int | None = None  # datagrams in the socket; None: any number
        self._queued: deque[float] = deque()
        # Every handshake message, as on the wire: kind, source, and what stands for its bytes.
        self.overhear: Callable[[str, Endpoint, bytes], None] = lambda _kind, _source, _bytes: None
        self._seen: dict[bytes, tuple[Endpoint, Message]] = {}

    # ---------------------------------------------------------------------------- configuration

    def configure(self, changes: tuple[PeerConfig, ...]) -> None:
        """Apply a difference."""
        for change in changes:
            if change.remove:
                self.peers.pop(change.key, None)
            elif change.key in self.peers or not change.update_only:
                self._apply(change)

    def _apply(self, change: PeerConfig) -> None:
        peer = self.peers.setdefault(change.key, Peer(change.key))
        if change.endpoint is not None:
            peer.endpoint = change.endpoint
            peer.stale_until = float("-inf")
        if change.allowed_ips is not None:
            for other in self.peers.values():  # a prefix belongs to one peer
                other.allowed = tuple(p for p in other.allowed if p not in change.allowed_ips)
            peer.allowed = change.allowed_ips
        if change.keepalive_s is not None:
            begins = peer.keepalive == 0 and change.keepalive_s > 0
            peer.keepalive = change.keepalive_s
            if begins:
                self._keep_alive(peer)

    def refresh_endpoints(self) -> None:
        """Set every current endpoint again: cures the stale source address."""
        for peer in self.peers.values():
            peer.stale_until = float("-inf")

    def moved(self) -> None:
        """Note that the own address changed: the cached source is stale now."""
        for peer in self.peers.values():
            peer.stale_until = self.world.now + STALE_SOURCE_S

    def read(self) -> DeviceState:
        """Read the whole state."""
        peers = {
            peer.key: PeerState(
                peer.key,
                peer.endpoint,
                peer.allowed,
                peer.keepalive,
                peer.handshake,
                peer.rx,
                peer.tx,
            )
            for peer in self.peers.values()
        }
        return DeviceState(self.tunnel, self.key, 0, peers)

    # -------------------------------------------------------------------------------- data path

    def send(self, payload: Payload) -> None:
        """Send a packet into the tunnel, as the kernel does that was told so by a route."""
        peer = self._route(payload.destination)
        if peer is None:
            self.world.note(f"{self.host}.{self.tunnel} no peer for {payload.destination}")
            return
        peer.staged.append(payload)
        del peer.staged[:-STAGED]
        self._flush(peer)

    def _route(self, destination: IPAddress) -> Peer | None:
        found = [
            (prefix.prefixlen, peer)
            for peer in self.peers.values()
            for prefix in peer.allowed
            if destination in prefix
        ]
        return max(found, key=lambda one: one[0], default=(0, None))[1]

    def _flush(self, peer: Peer) -> None:
        if peer.current is None or self.world.now - peer.stood_at > REJECT_AFTER:
            self._initiate(peer)
            return
        staged, peer.staged = peer.staged, []
        for payload in staged:
            self._emit(peer, Message("data", self.key, peer.current, payload))
            self._expect_answer(peer)

    def _keep_alive(self, peer: Peer) -> None:
        if self.peers.get(peer.key) is not peer or not peer.keepalive:
            return
        if peer.staged or peer.current is None:
            self._flush(peer)
        else:
            self._emit(peer, Message("data", self.key, peer.current))
        self.world.after(peer.keepalive, lambda: self._keep_alive(peer))

    def _expect_answer(self, peer: Peer) -> None:
        """Data without anything in return for 15 s: a new handshake."""
        if peer.waiting:
            return
        peer.waiting = True
        generation = peer.wait

        def overdue() -> None:
            if self.peers.get(peer.key) is peer and peer.wait == generation:
                peer.waiting = False
                peer.wait += 1
                self._initiate(peer)

        self.world.after(KEEPALIVE_TIMEOUT + REKEY_TIMEOUT, overdue)

    # -------------------------------------------------------------------------------- handshake

    def _initiate(self, peer: Peer, *, retry: bool = False) -> None:
        if self.world.now - peer.sent_at < REKEY_TIMEOUT or peer.endpoint is None:
            return
        peer.attempts = peer.attempts + 1 if retry else 0
        peer.sent_at = self.world.now
        peer.initiated = next(_ids)
        self._emit(peer, Message("init", self.key, peer.initiated))
        peer.retry += 1
        generation = peer.retry

        def again() -> None:
            if self.peers.get(peer.key) is peer and peer.retry == generation:
                if peer.attempts < MAX_ATTEMPTS:
                    self._initiate(peer, retry=True)
                else:
                    peer.staged.clear()

        self.world.after(REKEY_TIMEOUT + self.world.rng.random() * REKEY_JITTER, again)

    def receive(self, source: Endpoint, content: Message) -> None:
        """Take in a message from the underlay."""
        if content.kind != "data" and not self.dead:
            self._overheard(source, content)
        if not self._has_room():
            self.world.note(f"{self.host}.{self.tunnel} drops {content.kind}: buffer full")
            return
        peer = self.peers.get(content.sender)
        if self.dead or peer is None:
            self.world.note(f"{self.host}.{self.tunnel} drops {content.kind}: unknown peer")
            return
        if content.kind == "init":
            self._on_init(peer, source, content)
        elif content.kind == "response":
            self._on_response(peer, source, content)
        else:
            self._on_data(peer, source, content)

    def _overheard(self, source: Endpoint, content: Message) -> None:
        one = f"{content.kind} {content.session}".encode()
        self._seen[one] = source, content
        # The agent hears it when the device has had it.
        self.world.after(0.0, lambda: self.overhear(content.kind, source, one))

    def redeliver(self, one: bytes) -> None:
        """Receive a message again."""
        if one in self._seen and not self.dead:
            source, content = self._seen[one]
            if (peer := self.peers.get(content.sender)) is not None:
                self._on_init(peer, source, content)

    def _has_room(self) -> bool:
        while self._queued and self._queued[0] <= self.world.now - DRAINED_S:
            self._queued.popleft()
        if self.buffer is not None and len(self._queued) >= self.buffer:
            return False
        self._queued.append(self.world.now)
        return True

    def _on_init(self, peer: Peer, source: Endpoint, message: Message) -> None:
        since = self.world.now - peer.taken_at
        twice = message.session == peer.taken and since <= AT_ONCE_S
        if message.session <= peer.taken and not twice:
            self.world.note(f"{self.host}.{self.tunnel} drops init: an old one")
            return
        if since <= FLOOD_S and not twice:
            self.world.note(f"{self.host}.{self.tunnel} drops init: too many")
            return
        peer.taken_at, peer.taken = self.world.now, message.session
        self._heard(peer, source, INIT_BYTES)
        peer.initiated = None  # the one handshake state is the other's now
        peer.following, peer.previous = next(_ids), None
        peer.sent_at = self.world.now
        answer = Message("response", self.key, peer.following, answers=message.session)
        self._emit(peer, answer)

    def _on_response(self, peer: Peer, source: Endpoint, message: Message) -> None:
        if peer.initiated != message.answers:
            self.world.note(f"{self.host}.{self.tunnel} drops response: no such handshake")
            return
        self._heard(peer, source, RESPONSE_BYTES)
        peer.initiated = None
        if peer.following is not None:  # what it has answered meanwhile is not confirmed any more
            peer.current, peer.following = peer.following, None
        self._stand(peer, message.session)
        if peer.staged:
            self._flush(peer)
        else:
            self._emit(peer, Message("data", self.key, message.session))

    def _on_data(self, peer: Peer, source: Endpoint, message: Message) -> None:
        if message.session not in (peer.current, peer.following, peer.previous):
            self.world.note(f"{self.host}.{self.tunnel} drops data: unknown session")
            return
        size = DATA_BYTES + (len(message.payload.data) if message.payload else 0)
        self._heard(peer, source, size)
        if message.session == peer.following:
            peer.following = None
            self._stand(peer, message.session)
            if peer.staged:
                self._flush(peer)
        if message.payload is not None:
            self._passive_keepalive(peer)
            if any(message.payload.source in prefix for prefix in peer.allowed):
                self._deliver(message.payload)

    def _passive_keepalive(self, peer: Peer) -> None:
        sent = peer.tx

        def silent() -> None:
            if self.peers.get(peer.key) is peer and peer.tx == sent and peer.current is not None:
                self._emit(peer, Message("data", self.key, peer.current))

        self.world.after(KEEPALIVE_TIMEOUT, silent)

    def _stand(self, peer: Peer, session: int) -> None:
        peer.previous, peer.current = peer.current, session
        peer.stood_at, peer.handshake = self.world.now, self.world.wall
        peer.retry += 1  # stops the retransmit timer

    def _heard(self, peer: Peer, source: Endpoint, size: int) -> None:
        peer.endpoint = source
        peer.rx += size
        peer.waiting = False
        peer.wait += 1

    def _emit(self, peer: Peer, message: Message) -> None:
        if self.dead or peer.endpoint is None:
            return
        own = self._endpoint(peer.endpoint.address.version)
        size = {"init": INIT_BYTES, "response": RESPONSE_BYTES}.get(message.kind, DATA_BYTES)
        peer.tx += size + (len(message.payload.data) if message.payload else 0)
        if own is None or self.world.now < peer.stale_until:
            return
        label = message.payload.label if message.payload else ""
        kind = f"{self.tunnel}.{message.kind}{'.' + label if label else ''}"
        self.world.send(self.host, Datagram(kind, own, peer.endpoint, message))
