"""When the hosts of a crowd say what agents say: registers, probes, WireGuard's keepalives."""

import heapq
import itertools
import random
from collections.abc import Iterable

from crowd.host import Host
from wgmap_agent.engine.settings import Settings
from wgmap_chaos.load.tunnel import Tunnel

PASSIVE_S = 10.0  # WireGuard answers data with a keepalive after this, if nothing else was sent
SETTINGS = Settings()  # an agent's own


class Habits:
    """What is due when; ``now`` is the caller's."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._order = itertools.count()
        self._due: list[tuple[float, int, Host, Tunnel | None]] = []  # no tunnel: the register

    def begin(self, now: float, hosts: Iterable[Host]) -> None:
        """Begin with these, at moments that are spread as those of a fleet are."""
        for host in hosts:
            self._plan(now + SETTINGS.refresh_s * self._rng.random(), host, None)
            for tunnel in host.tunnels.values():
                host.probe_at[tunnel] = now + SETTINGS.probe_s * self._rng.random()
                self._plan(host.probe_at[tunnel], host, tunnel)

    def speak(self, now: float) -> None:
        """Say what is due."""
        while self._due and self._due[0][0] <= now:
            _, _, host, tunnel = heapq.heappop(self._due)
            if tunnel is None:
                host.register(host.preferred)
                self._plan(now + SETTINGS.refresh_s * self._rng.uniform(0.8, 1.0), host, None)
            else:
                self._turn(now, host, tunnel)

    def heard(self, now: float, host: Host, tunnel: Tunnel) -> None:
        """Take in that a server was heard: it need not be asked for a while."""
        host.probe_at[tunnel] = now + SETTINGS.probe_s * self._rng.uniform(0.8, 1.2)

    def _turn(self, now: float, host: Host, tunnel: Tunnel) -> None:
        """Probe a server that was not heard for long; keep quiet tunnels alive until then."""
        passive_at = host.heard_at[tunnel] + PASSIVE_S
        if host.probe_at[tunnel] <= now:
            host.probe(tunnel, self._rng.getrandbits(64))
            host.probe_at[tunnel] = now + SETTINGS.probe_s
        elif passive_at <= now < passive_at + 0.5:
            host.keep_alive(tunnel)
        at = host.probe_at[tunnel]
        self._plan(min(at, passive_at) if passive_at > now else at, host, tunnel)

    def _plan(self, at: float, host: Host, tunnel: Tunnel | None) -> None:
        heapq.heappush(self._due, (at, next(self._order), host, tunnel))
