"""The control tunnels: one WireGuard peer per map server, kicked where no handshake comes.

A server may learn of our key only after our first initiation, which is lost then, and WireGuard
would not repeat it for 5 s. A server that was rebooted is deaf to an old session until it starts
a handshake itself: it is given a moment.
"""

import random
from dataclasses import dataclass

from wgmap.addresses import host_prefix
from wgmap.wg.device import DeviceState, PeerConfig, PeerState
from wgmap_agent.engine.counters import Counters
from wgmap_agent.engine.servers import Server, Servers
from wgmap_agent.engine.settings import Settings
from wgmap_agent.engine.types import Action, ConfigurePeers, ServerInfo, Tunnel


@dataclass(slots=True)
class Tries:
    """How often a control tunnel was kicked, and when it may be again."""

    kick_at: float
    kicks: int = 0


class ControlTunnels:
    """Watches the tunnels to the servers."""

    def __init__(
        self, servers: Servers, settings: Settings, rng: random.Random, counters: Counters
    ) -> None:
        self._servers = servers
        self._settings = settings
        self._rng = rng
        self._counters = counters
        self._tries: dict[str, Tries] = {}  # by the server's name

    def start(self, now: float) -> list[Action]:
        """Configure a peer for every server; those that stand are not disturbed."""
        infos = [server.info for server in self._servers.all()]
        self._tries = {
            info.name: Tries(now + self._settings.control_kick_s * self._rng.uniform(1, 1.3))
            for info in infos
        }
        return [ConfigurePeers(Tunnel.CONTROL, tuple(self._config(info) for info in infos))]

    def follow(self, now: float, before: tuple[ServerInfo, ...]) -> list[Action]:
        """Configure what the change of the servers asks for; ``before``: those of until now."""
        present = {server.info.control_key: server.info for server in self._servers.all()}
        gone = [info.control_key for info in before if info.control_key not in present]
        changed = [info for info in present.values() if info not in before]
        names = {info.name for info in present.values()}
        self._tries = {name: tries for name, tries in self._tries.items() if name in names}
        for info in changed:
            kick_at = now + self._settings.control_kick_s * self._rng.uniform(1, 1.3)
            self._tries[info.name] = Tries(kick_at)
        changes = [PeerConfig(key, remove=True) for key in gone]
        changes += [self._config(info) for info in changed]
        return [ConfigurePeers(Tunnel.CONTROL, tuple(changes))]

    def heard(self, now: float, server: Server) -> None:
        """Note that a tunnel works."""
        wait = self._settings.probe_s + self._settings.deaf_s
        self._tries[server.info.name] = Tries(now + wait)

    def moved(self, now: float) -> None:
        """Start the back-off anew after our own addresses changed."""
        for tries in self._tries.values():
            tries.kicks = 0
            tries.kick_at = now + self._settings.control_kick_s * self._rng.uniform(1, 1.3)

    def deadline(self) -> float | None:
        """Return when the device must be read next."""
        return min((tries.kick_at for tries in self._tries.values()), default=None)

    def read(self, now: float, state: DeviceState, wall: float) -> list[Action]:
        """Judge all tunnels by a reading of the device, and kick those that do not stand."""
        known = {server.info.control_key for server in self._servers.all()}
        changes = [PeerConfig(key, remove=True) for key in state.peers if key not in known]
        if changes:
            self._counters.add("control.removed_unknown", len(changes))
        for server in self._servers.all():
            changes += self._judge(now, server, state.peers.get(server.info.control_key), wall)
        return [ConfigurePeers(Tunnel.CONTROL, tuple(changes))] if changes else []

    def _judge(
        self, now: float, server: Server, state: PeerState | None, wall: float
    ) -> list[PeerConfig]:
        tries = self._tries[server.info.name]
        if state is None:
            self._counters.add("control.added_again")
            return [self._config(server.info)]
        if now < tries.kick_at:
            return []
        if self._may_wait(now, server, state, wall):
            tries.kick_at = now + self._settings.deaf_s
            return []
        tries.kicks += 1
        wait = self._settings.control_kick_s * 2 ** min(tries.kicks, 10)
        wait = min(wait, self._settings.control_kick_cap_s)
        tries.kick_at = now + wait * self._rng.uniform(1, 1.3)
        self._counters.add("control.kicked")
        return [PeerConfig(server.info.control_key, remove=True), self._config(server.info)]

    def _may_wait(self, now: float, server: Server, state: PeerState, wall: float) -> bool:
        """Say whether a tunnel that nothing was heard on is given more time."""
        if not self._servers.is_silent(now, server.info.name) and server.heard is not None:
            return True
        if state.last_handshake is None:
            return False
        return wall - state.last_handshake < self._settings.deaf_s

    def _config(self, info: ServerInfo) -> PeerConfig:
        return PeerConfig(
            info.control_key,
            info.endpoint,
            (host_prefix(info.control_address),),
            self._settings.control_keepalive_s,
        )
