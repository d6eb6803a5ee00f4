"""The map servers as this agent sees them: round trips, silence, preference, probes."""

import random
import statistics
from dataclasses import dataclass
from ipaddress import IPv6Address

from wgmap.lisp.mark import UNKNOWN, Mark
from wgmap_agent.engine.revocations import Revocations
from wgmap_agent.engine.settings import Settings
from wgmap_agent.engine.types import ServerInfo, ServerStatus

UNKNOWN_RTT_S = 0.1


class RoundTrip:
    """A smoothed round trip and its variation (RFC 6298, section 2). Seconds."""

    def __init__(self) -> None:
        self.smoothed: float | None = None
        self._variation = 0.0

    def sample(self, value: float) -> None:
        """Take in one round trip of a datagram that was sent once (Karn)."""
        if self.smoothed is None:
            self.smoothed, self._variation = value, value / 2
            return
        self._variation += (abs(self.smoothed - value) - self._variation) / 4
        self.smoothed += (value - self.smoothed) / 8

    def timeout(self, unknown: float, floor: float) -> float:
        """Return how long to wait for an answer before repeating."""
        if self.smoothed is None:
            return unknown
        return max(floor, self.smoothed + max(floor, 4 * self._variation))


@dataclass(slots=True)
class Server:
    """One map server."""

    info: ServerInfo
    rtt: RoundTrip
    heard: float | None = None
    waiting_since: float | None = None  # the oldest datagram that was not answered
    probe_at: float = 0.0
    probes: int = 0  # in a row without hearing anything
    probe_nonce: int | None = None
    probe_sent: float = 0.0
    incarnation: bytes = UNKNOWN  # of its responder, as it told last


class Servers:
    """All servers; the first of ``order`` that is not silent is the preferred one."""

    def __init__(
        self,
        infos: tuple[ServerInfo, ...],
        settings: Settings,
        rng: random.Random,
        revocation: int | None = None,
    ) -> None:
        """``revocation``: number of the last one that is known (see Revocations)."""
        self.revocations = Revocations(revocation)
        self._settings = settings
        self._rng = rng
        shuffled = list(infos[: settings.max_servers])
        rng.shuffle(shuffled)  # agents spread over the servers
        self._servers = {info.name: Server(info, RoundTrip()) for info in shuffled}
        self._by_address = {info.control_address: info.name for info in shuffled}

    def start(self, now: float) -> None:
        """Set the first probes, spread over a second so that a fleet does not start as one."""
        for server in self._servers.values():
            server.probe_at = now + self._settings.server_probe_first_s * self._rng.random()

    def name_of(self, address: IPv6Address) -> str | None:
        """Return whose control address this is."""
        return self._by_address.get(address)

    def get(self, name: str) -> Server:
        """Return a server; KeyError where there is none."""
        return self._servers[name]

    def all(self) -> tuple[Server, ...]:
        """Return all servers, the best first."""
        return tuple(self._servers.values())

    def names(self, now: float) -> tuple[str, ...]:
        """Return names: those that answer first, the silent ones behind them."""
        return tuple(sorted(self._servers, key=lambda name: self.is_silent(now, name)))

    def preferred(self, now: float) -> str:
        """Return the server that is asked first."""
        return self.names(now)[0]

    def sent(self, now: float, name: str) -> None:
        """Note that something that wants an answer went out."""
        server = self._servers[name]
        if server.waiting_since is None:
            server.waiting_since = now

    def heard(self, now: float, name: str) -> bool:
        """Note a datagram from a server; True where it had been silent until now."""
        server = self._servers[name]
        returned = server.heard is None or self.is_silent(now, name)
        server.heard = now
        server.waiting_since = None
        server.probes = 0
        server.probe_at = now + self._settings.probe_s * self._rng.uniform(0.8, 1.2)
        return returned

    def mark(self, name: str) -> Mark:
        """Return what goes into the I field of everything that is sent to a server."""
        return self.revocations.mark(self._servers[name].incarnation)

    def told(self, name: str, incarnation: bytes) -> bool:
        """Note a server's incarnation; True where it had another one: it knows nobody any more."""
        server = self._servers[name]
        former, server.incarnation = server.incarnation, incarnation
        return former not in (UNKNOWN, incarnation)

    def sample(self, name: str, value: float) -> None:
        """Take in a round trip of a server."""
        self._servers[name].rtt.sample(value)

    def is_silent(self, now: float, name: str) -> bool:
        """Say whether a server owes an answer for too long."""
        server = self._servers[name]
        if server.waiting_since is None:
            return False
        limit = self._settings.server_silent_s + 3 * (server.rtt.smoothed or 0.0)
        return now - server.waiting_since > limit

    def rtt(self) -> float:
        """Return the middle of the smoothed round trips (seconds): what a data tunnel may take.

        Nothing is known of the way to a peer before it stands. Where no server was measured
        either it is taken as UNKNOWN_RTT_S.
        """
        known = [s.rtt.smoothed for s in self._servers.values() if s.rtt.smoothed is not None]
        return statistics.median_high(known) if known else UNKNOWN_RTT_S

    def timeout(self) -> float:
        """Return how long a request to all servers waits before it is repeated."""
        settings = self._settings
        return min(
            server.rtt.timeout(settings.request_unknown_rtt_s, settings.request_floor_s)
            for server in self._servers.values()
        )

    def due_probes(self, now: float) -> list[Server]:
        """Return the servers that must be asked something now; sets their next probes."""
        due = [server for server in self._servers.values() if server.probe_at <= now]
        for server in due:
            server.probes += 1
            wait = self._settings.server_probe_first_s * 2 ** min(server.probes - 1, 10)
            wait = min(wait, self._settings.probe_s)
            server.probe_at = now + wait * self._rng.uniform(0.8, 1.2)
            server.probe_nonce = self._rng.getrandbits(64)
            server.probe_sent = now
        return due

    def probe_answered(self, now: float, name: str, nonce: int) -> bool:
        """Take in an answer to a probe; False where the nonce is not the probe's."""
        server = self._servers[name]
        if server.probe_nonce != nonce:
            return False
        server.probe_nonce = None
        server.rtt.sample(now - server.probe_sent)
        return True

    def deadline(self) -> float:
        """Return when the next probe is due."""
        return min(server.probe_at for server in self._servers.values())

    def status(self, now: float) -> tuple[ServerStatus, ...]:
        """Describe all servers, by name."""
        preferred = self.preferred(now)
        return tuple(
            ServerStatus(
                name=name,
                control=str(server.info.control_address),
                rtt_ms=None if server.rtt.smoothed is None else server.rtt.smoothed * 1e3,
                last_heard_s=None if server.heard is None else now - server.heard,
                preferred=name == preferred,
            )
            for name, server in sorted(self._servers.items())
        )
