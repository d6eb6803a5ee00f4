"""A whole simulated network, and the invariants that hold after every step of it."""

import ipaddress
from dataclasses import replace
from ipaddress import IPv6Address

from support.agent_sim.host import CONTROL_PORT, Host
from support.agent_sim.mapserver import Log, MapServer
from support.agent_sim.wireguard import Device, Payload
from support.agent_sim.world import Fault, World
from wgmap.addresses import Endpoint, host_prefix
from wgmap.lisp.messages import Eid, Locator, Record
from wgmap.wg.device import PeerConfig
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.settings import Settings
from wgmap_agent.engine.types import ServerInfo

SETTLE_S = 3.0
DELAYS = (0.0, 0.002, 0.02, 0.08)  # one-way, seconds
EXACT = 1e-6


def server_info(number: int) -> ServerInfo:
    """Describe a map server."""
    return ServerInfo(
        f"ms{number}",
        PublicKey(bytes((number, 2)) + bytes(30)),
        Endpoint(ipaddress.ip_address(f"192.0.2.{number}"), CONTROL_PORT),
        IPv6Address(f"fd77:676d:6170::5:{number}"),
    )


class ServerHost:
    """A map server's machine: its control device and the model behind it."""

    def __init__(self, world: World, info: ServerInfo, log: Log) -> None:
        self.world, self.info = world, info
        self.device = Device(world, info.name, "ctl", info.control_key, self._own, self._received)
        self.server = MapServer(world, info.name, log, self._send)
        world.bind(info.endpoint, info.name, self.device)

    def _own(self, version: int) -> Endpoint | None:
        return self.info.endpoint if self.info.endpoint.address.version == version else None

    def _received(self, payload: Payload) -> None:
        assert isinstance(payload.source, IPv6Address)
        self.server.datagram(payload.source, payload.data)

    def _send(self, address: IPv6Address, kind: str, datagram: bytes) -> None:
        self.device.send(Payload(self.info.control_address, address, datagram, kind))

    def enrol(self, host: Host) -> None:
        """Accept an agent's control tunnel."""
        allowed = (host_prefix(host.control_address),)
        self.device.configure((PeerConfig(host.control_key, None, allowed),))

    def die(self) -> None:
        """Stop without a word."""
        self.server.dead = self.device.dead = True

    def revive(self) -> None:
        """Go on with the same interface."""
        self.server.dead = self.device.dead = False


def server_set(servers: list[ServerHost]) -> tuple[Record, ...]:
    """The server set, as servers answer it."""
    infos = [one.info for one in servers]
    return tuple(
        Record(
            Eid(host_prefix(info.control_address)),
            (Locator(info.endpoint.address, info.endpoint.port, info.control_key),),
            ttl_min=60,
            authoritative=True,
        )
        for info in infos
    )


class Lab:
    """Servers and agents on one underlay; agents are enrolled, and started by ``start``."""

    def __init__(
        self,
        *,
        seed: int = 0,
        delay: float = 0.0,
        agents: int = 2,
        servers: int = 3,
        settings: Settings | None = None,
        prefixes: tuple[str, ...] = (),
    ) -> None:
        """``prefixes``: of each agent, where it is more than its EID."""
        self.world = World(seed, delay)
        self.log = Log()
        self.settings = settings or Settings()
        infos = tuple(server_info(number) for number in range(1, servers + 1))
        self.servers = [ServerHost(self.world, info, self.log) for info in infos]
        self.log.servers = server_set(self.servers)
        for one in self.servers:
            one.server.peers = [o.server for o in self.servers if o is not one]
        own = [(ipaddress.ip_network(one),) for one in prefixes]
        self.hosts = [
            Host(self.world, n, infos, self.settings, own[n - 1] if own else ())
            for n in range(1, agents + 1)
        ]
        for host in self.hosts:
            self.enrol(host)
            host.check = self._check

    def enrol(self, host: Host) -> None:
        """Enrol an agent on every server."""
        self.log.enrolled[host.control_address] = host.prefixes
        for server in self.servers:
            server.enrol(host)

    def start(self) -> None:
        """Start every agent and wait until all are registered and the control tunnels stand."""
        for host in self.hosts:
            host.start()
        assert self.world.run(SETTLE_S, self.is_settled), self.story()
        self.world.run(SETTLE_S)
        self.world.log.clear()

    def is_settled(self) -> bool:
        """Say whether every agent is registered."""
        return all(self.is_registered(host) for host in self.hosts)

    def is_registered(self, host: Host) -> bool:
        """Say whether an agent knows that it is registered."""
        return host.engine is not None and host.engine.status(self.world.now).registered

    def first_answer(self, host: Host, limit: float = 30.0) -> float:
        """Run until an application was answered; return how long that took."""
        assert self.world.run(limit, lambda: bool(host.app.answered)), self.story()
        took = host.app.first_answer()
        assert took is not None
        return took

    def story(self) -> str:
        """Return what happened, for a failing test."""
        return "\n".join(["", *self.world.log[-200:]])

    # -------------------------------------------------------------------------------- invariants

    def _check(self, host: Host) -> None:
        """Check what must hold after every step of an engine."""
        engine = host.engine
        assert engine is not None
        plane = engine._plane
        contact, data = plane.contact, plane.data
        flows = {flow.destination for flow in contact.all()}
        assert set(contact.holding.destinations()) <= flows, "held without a flow"
        oldest = min((flow.started for flow in contact.all()), default=self.world.now)
        assert self.world.now - oldest <= self.settings.hold_s + 0.1, "a packet is held for ever"
        assert contact.holding.total <= self.settings.held_packets
        assert len(plane.requests) <= self.settings.max_requests
        self._check_peers(host)
        assert set(data.table.owners()) == set(data.peers), "a peer without reason"
        refused = plane.negative.unknown(self.world.now)
        assert not any(map(data.table.owner, refused)), "refused although somebody has it"

    def _check_peers(self, host: Host) -> None:
        assert host.engine is not None
        if not host.engine._watch.adopted:
            return
        data = host.engine._plane.data
        routed = {claim.prefix for claim in data.table.claims()}
        assert host.routes <= routed, "a route without peer"
        assert set(host.data.peers) == set(data.peers), "the device differs from the engine"
        for key, peer in host.data.peers.items():
            assert set(peer.allowed) == set(data.table.prefixes(key)), "AllowedIPs differ"

    def check_quiet(self) -> None:
        """Check that nothing is under way: no flow, nothing held, no keepalive left on."""
        for host in self.hosts:
            assert host.engine is not None
            plane = host.engine._plane
            assert len(plane.contact) == 0, self.story()
            assert plane.contact.holding.total == 0  # copies are gone as well
            assert all(peer.keepalive == 0 for peer in host.data.peers.values()), self.story()


def lab_with(delay: float, faults: tuple[Fault, ...] = (), **options: object) -> Lab:
    """Start a lab in which these faults are to come."""
    lab = Lab(delay=delay, **options)  # type: ignore[arg-type]
    lab.start()
    lab.world.faults += [replace(fault) for fault in faults]
    return lab
