"""A host: an engine, a runner for it, routes, WireGuard devices and an application that answers."""

import ipaddress
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address
from typing import assert_never

from support.agent_sim.wireguard import Device, Payload
from support.agent_sim.world import World
from wgmap.addresses import Endpoint, IPAddress, IPNetwork
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine import packets
from wgmap_agent.engine.engine import Engine
from wgmap_agent.engine.settings import Settings
from wgmap_agent.engine.types import (
    Action,
    AddRoutes,
    ConfigurePeers,
    DeleteRoutes,
    Identity,
    Inject,
    ReadPeers,
    Redeliver,
    RefreshEndpoints,
    Refuse,
    Save,
    SaveCache,
    SavedState,
    Send,
    ServerInfo,
    Stamp,
    Tunnel,
    UseServers,
)

DATA_PORT, CONTROL_PORT = 51820, 51822
READ_S = 0.001  # what a reading of a device takes
SET_S = 0.0005  # so much later the agent knows that the device has what was set
LAN, FLEET = ipaddress.IPv4Address("192.0.2.10"), ipaddress.IPv4Address("198.18.0.0")
SMALL = 80  # so many agents have their addresses beside the servers'
ECHO, ANSWER = b"\x08", b"\x00"


def ip_packet(source: IPAddress, destination: IPAddress, body: bytes) -> bytes:
    """Make an IP packet of protocol 253 (RFC 3692) around a body."""
    if source.version == 4:
        head = b"\x45\x00" + (20 + len(body)).to_bytes(2, "big") + bytes(5) + b"\xfd\x00\x00"
        return head + source.packed + destination.packed + body
    head = b"\x60\x00\x00\x00" + len(body).to_bytes(2, "big") + b"\xfd\x40"
    return head + source.packed + destination.packed + body


@dataclass(slots=True)
class Application:
    """What the applications of a host saw. Times by the body of the packet."""

    sent: dict[bytes, float] = field(default_factory=dict)
    answered: dict[bytes, float] = field(default_factory=dict)
    refused: int = 0

    def first_answer(self) -> float | None:
        """Return how long the first answer took since the first packet was sent."""
        if not self.answered:
            return None
        return min(self.answered.values()) - min(self.sent.values())


class Host:
    """One agent's machine."""

    def __init__(
        self,
        world: World,
        number: int,
        servers: tuple[ServerInfo, ...],
        settings: Settings,
        prefixes: tuple[IPNetwork, ...] = (),
    ) -> None:
        self.world, self.number, self.name = world, number, f"a{number}"
        self.settings, self.servers = settings, servers
        low, high = number % 256, number // 256  # for fleets: 10.66.0.2 comes after 10.66.255.1
        self.eid = ipaddress.ip_address(f"10.66.{low}.{1 + high}")
        self.prefixes = prefixes or (ipaddress.ip_network(self.eid),)
        self.control_address = IPv6Address(f"fd77:676d:6170::a:{number}")
        first = FLEET if number > SMALL else LAN
        self.underlay: tuple[IPAddress, ...] = (first + number,)
        self.data_key = PublicKey(bytes((low, 0, high)) + bytes(29))
        self.control_key = PublicKey(bytes((low, 1, high)) + bytes(29))
        self.saved = SavedState()
        self.cache = SaveCache((), None)
        self.app = Application()
        self.routes: set[IPNetwork] = set()
        self.control = Device(
            world, self.name, "ctl", self.control_key, self._endpoint(CONTROL_PORT), self._datagram
        )
        self.data = self._new_data()
        self.engine: Engine | None = None
        self.check: Callable[[Host], None] = lambda _: None  # after every step of the engine
        self._run = 0  # number of the present engine
        self._timer_at: float | None = None
        self._configured_at = float("-inf")
        self._bind()

    # ------------------------------------------------------------------------------- the machine

    def _new_data(self) -> Device:
        endpoint = self._endpoint(DATA_PORT)
        made = Device(self.world, self.name, "data", self.data_key, endpoint, self._packet_in)
        made.overhear = self._overhear
        return made

    def _overhear(self, kind: str, source: Endpoint, session: bytes) -> None:
        if self.engine is None:
            return
        if kind == "response":
            self._do(self.engine.response(self.world.now, source))
        else:
            self._do(self.engine.initiation(self.world.now, source, self.world.now, session))

    def _endpoint(self, port: int) -> Callable[[int], Endpoint | None]:
        def find(version: int) -> Endpoint | None:
            own = (one for one in self.underlay if one.version == version)
            address = next(own, None)
            return None if address is None else Endpoint(address, port)

        return find

    def _bind(self) -> None:
        for address in self.underlay:
            self.world.bind(Endpoint(address, DATA_PORT), self.name, self.data)
            self.world.bind(Endpoint(address, CONTROL_PORT), self.name, self.control)

    def move(self, address: str) -> None:
        """Get another underlay address."""
        for old in self.underlay:
            self.world.unbind(Endpoint(old, DATA_PORT))
            self.world.unbind(Endpoint(old, CONTROL_PORT))
        self.underlay = (ipaddress.ip_address(address),)
        self._bind()
        self.data.moved()
        self.control.moved()
        if self.engine is not None:
            self._do(self.engine.addresses_changed(self.world.now, self.underlay))

    def start(self) -> None:
        """Start the agent."""
        self._run += 1
        self._timer_at = None
        self.engine = Engine(
            self.identity(),
            self.saved,
            random.Random(self.world.rng.getrandbits(64)),
            self.settings,
            self.cache.peers,
        )
        self._do(self.engine.start(self.world.now, self.underlay))

    def stop(self) -> None:
        """Stop the agent; devices and routes stay."""
        self._run += 1
        self.engine = None

    def reboot(self, new_key: bytes | None = None) -> None:
        """Lose devices, routes and the agent, and start again, maybe with another data key."""
        self.stop()
        self.data.dead = True
        if new_key is not None:
            self.data_key = PublicKey(new_key)
        self.routes.clear()
        self.control.peers.clear()
        self.data = self._new_data()
        self._bind()
        self.start()

    def identity(self) -> Identity:
        """Return what the engine is told of itself."""
        return Identity(
            name=self.name,
            instance=0,
            prefixes=self.prefixes,
            overlay=(ipaddress.ip_network("10.66.0.0/16"),),
            control_address=self.control_address,
            data_key=self.data_key,
            data_port=DATA_PORT,
            servers=self.servers,
            ttl_min=60,
            idle_s=900.0,
        )

    # ------------------------------------------------------------------------------- applications

    def ping(self, destination: IPAddress, body: bytes = b"") -> None:
        """Send a packet that its destination answers."""
        body = body or f"{self.name}-{len(self.app.sent)}".encode()
        self.app.sent[body] = self.world.now
        self._route(ip_packet(self.eid, destination, ECHO + body))

    def ping_every(self, seconds: float, destination: IPAddress, count: int) -> None:
        """Send packets like an application that tries again."""
        self.ping(destination)
        if count > 1:
            self.world.after(seconds, lambda: self.ping_every(seconds, destination, count - 1))

    def _route(self, packet: bytes) -> None:
        """Do what the kernel does with a packet: the longest route, or the TUN."""
        header = packets.read(packet)
        assert header is not None
        if any(header.destination in route for route in self.routes):
            self.data.send(Payload(header.source, header.destination, packet))
        elif self.engine is not None:
            self._do(self.engine.packet(self.world.now, packet))

    def _packet_in(self, payload: Payload) -> None:
        packet = payload.data
        header = packets.read(packet)
        assert header is not None
        body = packet[20:] if header.source.version == 4 else packet[40:]
        if body[:1] == ECHO and packet[9] == 0xFD:
            self._route(ip_packet(header.destination, header.source, ANSWER + body[1:]))
        elif body[:1] == ECHO and packet[9] == 1:  # the engine's probe
            answer = ip_packet(header.destination, header.source, ANSWER + body[1:])
            self._route(answer[:9] + b"\x01" + answer[10:])
        elif packet[9] == 0xFD:
            self.app.answered.setdefault(body[1:], self.world.now)

    # --------------------------------------------------------------------------------- the runner

    def _datagram(self, payload: Payload) -> None:
        if self.engine is not None and isinstance(payload.source, IPv6Address):
            self._do(self.engine.datagram(self.world.now, payload.source, payload.data))

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            self._execute(action)
        self._arm()
        self.check(self)

    def _send(self, server: str, datagram: bytes) -> None:
        info = next(one for one in self.servers if one.name == server)
        kind = {1: "request", 3: "register", 5: "ack"}[datagram[0] >> 4]
        self.control.send(Payload(self.control_address, info.control_address, datagram, kind))

    def _execute(self, action: Action) -> None:  # noqa: C901, PLR0912  # one line for each action
        match action:
            case Send(server, datagram):
                self._send(server, datagram)
            case ConfigurePeers(tunnel, changes):
                self._note(action)
                self._device(tunnel).configure(changes)
                if tunnel is Tunnel.DATA:
                    self._configured_at = self.world.now + SET_S
            case AddRoutes(prefixes):
                self._note(action)
                self.routes |= set(prefixes)
            case DeleteRoutes(prefixes):
                self.routes -= set(prefixes)
            case Inject(injected):
                for packet in injected:
                    self._inject(packet)
            case Redeliver(again, at):
                if at <= self._configured_at:
                    self.data.redeliver(again)
            case Refuse():
                self.app.refused += 1
            case ReadPeers():
                self._read(action)
            case RefreshEndpoints(tunnel):
                self._device(tunnel).refresh_endpoints()
            case UseServers(servers):
                self.servers = servers
            case Save(state):
                self.saved = state
            case SaveCache():
                self.cache = action
            case Stamp():
                pass  # for operators only
            case _:
                assert_never(action)

    def _note(self, action: ConfigurePeers | AddRoutes) -> None:
        if isinstance(action, AddRoutes):
            self.world.note(f"{self.name} routes {[str(p) for p in action.prefixes]}")
            return
        for one in action.peers:
            what = "remove" if one.remove else f"set ka={one.keepalive_s} ep={one.endpoint}"
            self.world.note(f"{self.name} {action.tunnel.value} peer {one.key[0]} {what}")

    def _inject(self, packet: bytes) -> None:
        header = packets.read(packet)
        assert header is not None
        self.data.send(Payload(header.source, header.destination, packet))

    def _device(self, tunnel: Tunnel) -> Device:
        return self.control if tunnel is Tunnel.CONTROL else self.data

    def _read(self, asked: ReadPeers) -> None:
        state, run = self._device(asked.tunnel).read(), self._run
        if asked.keys is not None:
            some = {key: one for key, one in state.peers.items() if key in asked.keys}
            state = replace(state, peers=some)

        def answer() -> None:
            if self.engine is not None and self._run == run:
                self._do(self.engine.peers_read(self.world.now, asked, state, self.world.wall))

        self.world.after(READ_S, answer)

    def _arm(self) -> None:
        deadline = None if self.engine is None else self.engine.deadline()
        if deadline is None or (self._timer_at is not None and self._timer_at <= deadline):
            return
        at = self._timer_at = max(deadline, self.world.now)
        run = self._run
        self.world.after(at - self.world.now, lambda: self._tick(at, run))

    def _tick(self, at: float, run: int) -> None:
        if self.engine is None or self._run != run or self._timer_at != at:
            return
        self._timer_at = None
        self._do(self.engine.timer(self.world.now))
