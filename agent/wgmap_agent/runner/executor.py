"""Does what the engine decided: actions in their order, each as one request.

Nothing here decides. What fails is handed to ``failed`` (the engine's) and the rest of the list
goes on: the engine knows what depends on what.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, assert_never

from wgmap import clock
from wgmap.addresses import Endpoint, IPAddress, IPNetwork
from wgmap.errors import WgmapError
from wgmap.log import Log
from wgmap.wg.device import Device, DeviceConfig, PeerConfig
from wgmap_agent.engine.packets import summed
from wgmap_agent.engine.types import (
    Action,
    AddRoutes,
    ConfigurePeers,
    DeleteRoutes,
    Inject,
    ReadPeers,
    Redeliver,
    RefreshEndpoints,
    Refusal,
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
from wgmap_agent.runner import icmp
from wgmap_agent.runner.injector import Injected
from wgmap_agent.runner.links import source_towards

PEERS_A_REQUEST = 500  # endpoints set again at once: bounds the size of one request

log = Log("agent.executor")

_Waiting: TypeAlias = ConfigurePeers | AddRoutes | DeleteRoutes | RefreshEndpoints
_Prompt: TypeAlias = (
    Send | Inject | Redeliver | Refuse | ReadPeers | Save | SaveCache | Stamp | UseServers
)
_WAITING = (ConfigurePeers, AddRoutes, DeleteRoutes, RefreshEndpoints)


class Routes(Protocol):
    """The routes to the data interface."""

    async def add(self, prefixes: Sequence[IPNetwork]) -> None:
        """Add or replace, as one batch; raises WgmapError."""
        ...

    def begin_add(self, prefixes: Sequence[IPNetwork]) -> Awaitable[None] | None:
        """As ``add``; None: it is done. Raises WgmapError."""
        ...

    async def delete(self, prefixes: Sequence[IPNetwork]) -> None:
        """Remove; absent ones are no error; raises WgmapError."""
        ...


class PacketSender(Protocol):
    """Sends whole IP packets."""

    def send(self, packets: tuple[bytes, ...]) -> Injected:
        """Send what can be sent; never blocks."""
        ...


class DatagramSender(Protocol):
    """Sends to map servers through the control tunnel."""

    def send(self, server: str, datagram: bytes) -> None:
        """Send one datagram to a server by its name; raises OSError."""
        ...


@dataclass(frozen=True, slots=True)
class Hands:
    """What the executor works with."""

    devices: dict[Tunnel, Device]
    routes: Routes
    control: DatagramSender
    data: PacketSender  # leaves through the data interface only
    local: PacketSender  # follows the routes, for answers to senders
    source_for: Callable[[IPAddress], IPAddress | None]  # whence an ICMP error to that address
    read_peers: Callable[[ReadPeers], None]
    save: Callable[[SavedState], None]
    save_cache: Callable[[SaveCache], None]
    stamp: Callable[[Stamp], None]
    use_servers: Callable[[tuple[ServerInfo, ...]], None]
    data_mtu: int


class Executor:
    """Executes action lists; one at a time, so callers await it."""

    def __init__(self, hands: Hands, failed: Callable[[Action, WgmapError], None]) -> None:
        self._hands = hands
        self._failed = failed
        self._begun: tuple[Action, Awaitable[None]] | None = None
        self._configured_at = float("-inf")  # when the data device had all its peers
        self.counters: Counter[str] = Counter()

    def begin(self, actions: list[Action]) -> list[Action]:
        """Execute the first ones that need no waiting; return the others, to be executed next."""
        for number, action in enumerate(actions):
            try:
                if not self._begin(action):
                    return actions[number:]
            except WgmapError as error:
                self._report(action, error)
        return []

    def _begin(self, action: Action) -> bool:
        """Execute one where that needs no waiting; a change may have begun even so."""
        if isinstance(action, ConfigurePeers):
            rest = self._hands.devices[action.tunnel].begin(DeviceConfig(peers=action.peers))
            self._note_configured(action)
        elif isinstance(action, AddRoutes):
            rest = self._hands.routes.begin_add(action.prefixes)
        elif isinstance(action, _WAITING):
            return False
        else:
            self._at_once(action)
            return True
        self._begun = None if rest is None else (action, rest)
        return rest is None

    async def execute(self, actions: Sequence[Action]) -> None:
        """Execute one list in its order; never raises for what a device or the kernel refuses."""
        for action in actions:
            try:
                if isinstance(action, _WAITING):
                    await self._waiting(action)
                    self._note_configured(action)
                else:
                    self._at_once(action)
            except WgmapError as error:
                self._report(action, error)

    def _note_configured(self, action: Action) -> None:
        if isinstance(action, ConfigurePeers) and action.tunnel is Tunnel.DATA:
            self._configured_at = clock.now()

    def _report(self, action: Action, error: WgmapError) -> None:
        self.counters["execute.failed"] += 1
        log.warning("action failed", action=type(action).__name__, reason=error)
        self._failed(action, error)

    def _waiting(self, action: _Waiting) -> Awaitable[None]:
        hands = self._hands
        match action:
            case _ if self._begun is not None and self._begun[0] is action:
                begun, self._begun = self._begun[1], None
                return begun
            case ConfigurePeers():
                config = DeviceConfig(peers=action.peers)
                return hands.devices[action.tunnel].configure(config)
            case AddRoutes():
                return hands.routes.add(action.prefixes)
            case DeleteRoutes():
                return hands.routes.delete(action.prefixes)
            case RefreshEndpoints():
                return self._refresh(hands.devices[action.tunnel])
            case _:
                assert_never(action)

    def _at_once(self, action: _Prompt) -> None:
        match action:
            case Send():
                self._send(action)
            case Inject():
                self._inject(action.packets)
            case Redeliver():
                self._redeliver(action)
            case Refuse():
                self._refuse(action.packet, action.refusal, action.mtu)
            case ReadPeers():
                self._hands.read_peers(action)
            case Save():
                self._hands.save(action.state)
            case SaveCache():
                self._hands.save_cache(action)
            case Stamp():
                self._hands.stamp(action)
            case UseServers():
                self._hands.use_servers(action.servers)
            case _:
                assert_never(action)

    def _send(self, action: Send) -> None:
        """Send a datagram; what cannot go out counts as lost on the way, as any datagram may."""
        try:
            self._hands.control.send(action.server, action.datagram)
        except OSError as error:
            self.counters["control.send_failed"] += 1
            log.debug("datagram not sent", server=action.server, reason=error)

    def _inject(self, packets: tuple[bytes, ...]) -> None:
        result = self._hands.data.send(packets)
        self.counters["inject.sent"] += result.sent
        for name, number in result.failed.items():
            self.counters[f"inject.{name}"] += number
        for packet in result.too_big:
            self._refuse(packet, Refusal.TOO_BIG, self._hands.data_mtu)

    def _redeliver(self, action: Redeliver) -> None:
        """Let the kernel deliver a packet again: to an address of its own it goes by no wire."""
        if action.at > self._configured_at:
            return
        result = self._hands.local.send((summed(action.packet),))
        self.counters["redeliver.sent"] += result.sent
        self.counters["redeliver.failed"] += 1 - result.sent

    def _refuse(self, packet: bytes, refusal: Refusal, mtu: int) -> None:
        about = icmp.header(packet)
        source = self._hands.source_for(about.source) if about else None
        answer = icmp.error_for(packet, refusal, source, mtu) if source else None
        if answer is None:
            self.counters["refuse.silent"] += 1
            return
        result = self._hands.local.send((answer,))
        self.counters["refuse.sent"] += result.sent
        self.counters["refuse.failed"] += 1 - result.sent

    async def _refresh(self, device: Device) -> None:
        """Set every peer's current endpoint again, which drops a cached source address."""
        state = await device.read()
        changes = [
            PeerConfig(peer.key, endpoint=peer.endpoint, update_only=True)
            for peer in state.peers.values()
            if peer.endpoint is not None
        ]
        for start in range(0, len(changes), PEERS_A_REQUEST):
            batch = tuple(changes[start : start + PEERS_A_REQUEST])
            await device.configure(DeviceConfig(peers=batch))


class SourceFinder:
    """Picks the address that ICMP errors come from: the host EID, else what the kernel takes."""

    def __init__(self, own: Sequence[IPNetwork]) -> None:
        """Take the agent's prefixes; those of one address are its host EIDs."""
        self._hosts: dict[int, IPAddress] = {}
        for prefix in own:
            if prefix.num_addresses == 1:
                self._hosts.setdefault(prefix.version, prefix.network_address)

    def __call__(self, destination: IPAddress) -> IPAddress | None:
        """Return the address for errors to ``destination``; None without a route to it."""
        return self._hosts.get(destination.version) or source_towards(Endpoint(destination, 9))
