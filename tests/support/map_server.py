"""A map server for tests of agents: one process-less server that behaves.

It speaks LISP on port 4342 of a real WireGuard control interface in a namespace, from the test's
own event loop. It keeps what is registered, answers with every prefix of a peer, pushes the
requester to the destination and changes to those who asked, repeated until acknowledged. It
refuses what a real one refuses: prefixes of others, old nonces.
"""

import asyncio
import ipaddress
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address

from support.netns import WIREGUARD_SOCKETS, Namespace, Netbed, wait_until
from wgmap import addresses, udp
from wgmap.addresses import Endpoint, IPNetwork
from wgmap.lisp import codec
from wgmap.lisp.messages import (
    LISP_PORT,
    Action,
    MapNotify,
    MapNotifyAck,
    MapRegister,
    MapReply,
    MapRequest,
    Message,
    Record,
)
from wgmap.wg.keys import PrivateKey, PublicKey

CONTROL_PREFIX = ipaddress.IPv6Network("fd77:676d:6170::/64")
CONTROL_PORT = 51822


@dataclass
class Enrolled:
    """A peer that may register."""

    address: IPv6Address
    prefixes: tuple[IPNetwork, ...]
    nonce: int = 0
    version: int = 0
    records: tuple[Record, ...] = ()
    subscribers: set[IPv6Address] = field(default_factory=set)


class MapServer:
    """One map server in a namespace."""

    def __init__(self, bed: Netbed, namespace: Namespace, name: str, endpoint: Endpoint) -> None:
        self.name = name
        self.namespace = namespace
        self.endpoint = endpoint
        self.key = PrivateKey.generate()
        self.address = addresses.control_address(CONTROL_PREFIX, self.key.public)
        self.interface = bed.name(f"m{name[-1]}")
        self.peers: dict[IPv6Address, Enrolled] = {}
        self.registers = 0
        self.requests: list[IPNetwork] = []
        self.push_delay_s = 0.0
        self.silent = False
        self._nonces = itertools.count(1 << 40)
        self._acknowledged: dict[int, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._make_tunnel(bed)
        with namespace.entered():
            self._socket = udp.open_socket(self.address, LISP_PORT, self.interface)

    def start(self) -> None:
        """Serve on the running loop."""
        asyncio.get_running_loop().add_reader(self._socket, self._drain)

    async def close(self) -> None:
        """Stop serving."""
        asyncio.get_running_loop().remove_reader(self._socket)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._socket.close()

    def enrol(self, control_key: PublicKey, prefixes: Iterable[IPNetwork]) -> Enrolled:
        """Accept a control tunnel and its prefixes."""
        address = addresses.control_address(CONTROL_PREFIX, control_key)
        self.peers[address] = Enrolled(address, tuple(prefixes))
        self._wg("peer", str(control_key), "allowed-ips", f"{address}/128")
        return self.peers[address]

    def push(self, peer: Enrolled, records: tuple[Record, ...]) -> None:
        """Push records to a peer until it acknowledges."""
        self._push(peer.address, records)

    def locators(self, peer: Enrolled) -> set[str]:
        """Return the underlay addresses that a peer registered."""
        return {str(one.address) for record in peer.records for one in record.locators}

    def _make_tunnel(self, bed: Netbed) -> None:
        bed.popen(self.namespace, "wireguard-go", "-f", self.interface)
        path = WIREGUARD_SOCKETS / f"{self.interface}.sock"
        wait_until(path.exists, f"{self.interface} made")
        self._wg("listen-port", str(self.endpoint.port), "private-key", "/dev/stdin")
        namespace = self.namespace
        namespace.ip("addr", "add", f"{self.address}/128", "dev", self.interface, "nodad")
        namespace.ip("link", "set", self.interface, "up")
        namespace.ip("route", "add", str(CONTROL_PREFIX), "dev", self.interface)

    def _wg(self, *arguments: str) -> None:
        namespace = self.namespace
        secret = self.key.encode()
        script = f"echo {secret} | wg set {self.interface} {' '.join(arguments)}"
        namespace.run("sh", "-c", script)

    def _drain(self) -> None:
        while True:
            try:
                data, sender = self._socket.recvfrom(65535)
            except (BlockingIOError, ConnectionError):
                return
            peer = self.peers.get(IPv6Address(sender[0]))
            if peer is not None and not self.silent:
                self._handle(peer, codec.decode(data))

    def _handle(self, peer: Enrolled, message: Message) -> None:
        match message:
            case MapRegister():
                self._register(peer, message)
            case MapRequest():
                self._request(peer, message)
            case MapNotifyAck():
                self._acknowledged.setdefault(message.nonce, asyncio.Event()).set()
            case _:
                raise AssertionError(f"an agent never sends {message}")

    def _register(self, peer: Enrolled, message: MapRegister) -> None:
        assert {one.eid.prefix for one in message.records} <= set(peer.prefixes)
        self.registers += 1
        if message.nonce > peer.nonce:
            changed = peer.records != message.records
            peer.nonce = message.nonce
            peer.version += 1
            peer.records = tuple(
                replace(one, version=peer.version, authoritative=True) for one in message.records
            )
            if changed:
                for subscriber in peer.subscribers:
                    self._push(subscriber, peer.records)
        self._send(peer.address, MapNotify(peer.nonce, peer.records))

    def _request(self, peer: Enrolled, message: MapRequest) -> None:
        (record,) = message.records
        self.requests.append(record.eid.prefix)
        owner = self._owner(record.eid.prefix)
        if owner is None:
            negative = Record(record.eid, ttl_min=1, action=Action.DROP, authoritative=True)
            self._send(peer.address, MapReply(message.nonce, (negative,)))
            return
        if owner is not peer:
            owner.subscribers.add(peer.address)
            self._push(owner.address, peer.records)
        self._send(peer.address, MapReply(message.nonce, owner.records))

    def _owner(self, prefix: IPNetwork) -> Enrolled | None:
        return next((p for p in self.peers.values() if _covers(p.records, prefix)), None)

    def _push(self, address: IPv6Address, records: tuple[Record, ...]) -> None:
        push = MapNotify(next(self._nonces), records)
        if not self.push_delay_s:
            self._send(address, push)  # before the answer: the destination knows first
        task = asyncio.create_task(self._push_until_acknowledged(address, push))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _push_until_acknowledged(self, address: IPv6Address, push: MapNotify) -> None:
        acknowledged = self._acknowledged.setdefault(push.nonce, asyncio.Event())
        wait = self.push_delay_s or 0.05
        while not acknowledged.is_set():
            try:
                await asyncio.wait_for(acknowledged.wait(), wait)
            except TimeoutError:
                wait = min(wait * 2, 3.0)
                self._send(address, push)

    def _send(self, address: IPv6Address, message: Message) -> None:
        if self.silent:
            return
        try:
            self._socket.sendto(codec.encode(message), (str(address), LISP_PORT))
        except OSError:
            return  # as lost on the way


def _covers(records: tuple[Record, ...], prefix: IPNetwork) -> bool:
    return any(
        one.eid.prefix.version == prefix.version and prefix.subnet_of(one.eid.prefix)  # type: ignore[arg-type]
        for one in records
    )
