"""The map servers as this agent sees them: round trips, silence, preference, probes."""

import random
import statistics
from dataclasses import dataclass, replace
from ipaddress import IPv6Address

from wgmap.lisp.mark import UNKNOWN, Mark
from wgmap_agent.engine.revocations import Revocations
from wgmap_agent.engine.settings import Settings
from wgmap_agent.engine.types import SavedState, ServerInfo, ServerStatus

UNKNOWN_RTT_S = 0.1
# An answer that waited for a handshake or for a server's start says little of the way, and would
# hold up hedges and repairs for minutes. So one sample counts for so many times what was known, and
# this; and where one is so much shorter than what was known, which no way ever is by chance, what
# was known is forgotten: the first sample of all has usually waited.
OUTLIER_RTTS, OUTLIER_S = 3.0, 0.02
SHORTER = 0.5


class RoundTrip:
    """A smoothed round trip and its variation (RFC 6298, section 2). Seconds."""

    def __init__(self) -> None:
        self.smoothed: float | None = None
        self._variation = 0.0

    def sample(self, value: float) -> None:
        """Take in one round trip of a datagram that was sent once (Karn)."""
        if self.smoothed is None or value < SHORTER * self.smoothed:
            self.smoothed, self._variation = value, value / 2
            return
        value = min(value, OUTLIER_RTTS * self.smoothed + OUTLIER_S)
        self._variation += (abs(self.smoothed - value) - self._variation) / 4
        self.smoothed += (value - self.smoothed) / 8

    def patience(self, rtts: tuple[float, float], unknown: float, floor: float) -> float:
        """Return after how long an answer is late: so many round trips and the variation.

        ``rtts``: the least and the most; the variation is not known well at first.
        """
        if self.smoothed is None:
            return unknown
        least, most = (count * self.smoothed for count in rtts)
        return max(floor, min(least + 4 * self._variation, most))

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
    owes_since: float | None = None  # the oldest of those that it answers alone, without a leader
    probe_at: float = 0.0
    probes: int = 0  # in a row without hearing anything
    probe_nonce: int | None = None
    probe_sent: float = 0.0
    avoid_until: float = float("-inf")  # it was passed over: asked behind the others until then
    lapses: int = 0  # how often, not long ago
    lost: bool = False  # its silence was told
    incarnation: bytes = UNKNOWN  # of its responder, as it told last


class Servers:
    """All servers in the order of preference.

    Each agent has its own order, shuffled, so that a fleet spreads. Those that are silent, were
    passed over or are far away come behind the others, and get their place back.
    """

    def __init__(
        self,
        infos: tuple[ServerInfo, ...],
        settings: Settings,
        rng: random.Random,
        saved: SavedState | None = None,
    ) -> None:
        """``infos`` were configured; ``saved`` has what a former run had learnt."""
        saved = saved or SavedState()
        self.revocations = Revocations(saved.revocation, saved.revoked)
        self._configured = infos
        self._settings = settings
        self._rng = rng
        shuffled = list(at_start(infos, saved.servers)[: settings.max_servers])
        rng.shuffle(shuffled)  # agents spread over the servers
        self._servers = {info.name: Server(info, RoundTrip()) for info in shuffled}
        self._by_address = {info.control_address: info.name for info in shuffled}

    def start(self, now: float) -> None:
        """Set the first probes, spread over a second so that a fleet does not start as one."""
        for server in self._servers.values():
            server.probe_at = now + self._settings.server_probe_first_s * self._rng.random()

    def use(self, now: float, infos: tuple[ServerInfo, ...]) -> None:
        """Make these the servers; those that stay keep what is known of them."""
        known = {server.info.control_key: server for server in self._servers.values()}
        staying = [one for one in self._servers.values() if one.info in infos]
        others = [info for info in infos if info not in {one.info for one in staying}]
        for info in others:
            server = Server(info, RoundTrip())
            if info.control_key in known:
                server.rtt = known[info.control_key].rtt
            server.probe_at = now + self._settings.server_probe_first_s * self._rng.random()
            staying.insert(self._rng.randint(0, len(staying)), server)  # agents spread
        self._servers = {server.info.name: server for server in staying}
        self._by_address = {one.info.control_address: one.info.name for one in staying}

    def learnt(self) -> tuple[ServerInfo, ...]:
        """Return the servers where they are others than those configured."""
        present = tuple(server.info for server in self._servers.values())
        return () if set(present) == set(self._configured) else present

    def name_of(self, address: IPv6Address) -> str | None:
        """Return whose control address this is."""
        return self._by_address.get(address)

    def knows(self, name: str) -> bool:
        """Say whether there is a server of this name."""
        return name in self._servers

    def get(self, name: str) -> Server:
        """Return a server; KeyError where there is none."""
        return self._servers[name]

    def all(self) -> tuple[Server, ...]:
        """Return all servers, the best first."""
        return tuple(self._servers.values())

    def names(self, now: float) -> tuple[str, ...]:
        """Return names, the preferred one first, the silent ones last."""
        far = self._far(now)

        def rank(server: Server) -> tuple[bool, ...]:
            name = server.info.name
            is_far = (server.rtt.smoothed or 0.0) > far
            in_doubt = server.avoid_until > now or self._owes(now, server)
            return self.is_silent(now, name), server.heard is None, in_doubt, is_far

        return tuple(one.info.name for one in sorted(self._servers.values(), key=rank))

    def best(self, now: float) -> Server | None:
        """Return the server that is asked first and alone; None: none is known to answer."""
        server = self._servers[self.names(now)[0]]
        answers = server.heard is not None and server.rtt.smoothed is not None
        return server if answers and not self.is_silent(now, server.info.name) else None

    def patience(self, name: str) -> float:
        """Return after how long (seconds) the answer of a server is late: then others are asked."""
        settings = self._settings
        rtt = self._servers[name].rtt
        return rtt.patience(
            settings.hedge_rtts, settings.request_unknown_rtt_s, settings.hedge_floor_s
        )

    def passed_over(self, now: float, name: str) -> bool:
        """Take preference from a server that others were better than; False: it has none.

        It is asked something at once, so that its silence shows.
        """
        server, settings = self._servers[name], self._settings
        if server.avoid_until > now:
            return False
        if now - server.avoid_until > settings.avoid_forget_s:
            server.lapses = 0
        wait = min(settings.avoid_first_s * 2 ** min(server.lapses, 10), settings.avoid_cap_s)
        server.lapses += 1
        server.avoid_until = now + wait * self._rng.uniform(1.0, 1.2)
        server.probe_at = min(server.probe_at, now)
        return True

    def outrun_at(self, name: str, asked: float) -> float | None:
        """Return when a server that was asked then and says nothing is late; None: not yet.

        Others were heard meanwhile, so the way out works.
        """
        server = self._servers.get(name)
        if server is None:
            return asked
        others = (one.heard for one in self._servers.values() if one is not server)
        if server.heard is not None and server.heard > asked:
            return None
        if not any(heard is not None and heard > asked for heard in others):
            return None
        return asked + max(self.patience(name), self._settings.late_floor_s)

    def late(self, now: float) -> tuple[str, ...]:
        """Return the servers whose answer is late although another was heard since they were asked.

        So the way out works, and it is theirs. Those that were passed over are known already.
        """
        return tuple(
            name
            for name, server in self._servers.items()
            if (at := self._late_at(server)) is not None
            if at <= now and server.avoid_until <= now and not self.is_silent(now, name)
        )

    def _late_at(self, server: Server) -> float | None:
        """Return when a server that owes an answer, and no other, is late."""
        since = server.owes_since
        if since is None or server.heard is None or server.rtt.smoothed is None:
            return None
        return self.outrun_at(server.info.name, since)

    def newly_silent(self, now: float) -> frozenset[str]:
        """Return the servers that were heard once and are silent now; each silence once."""
        silent = [
            server
            for name, server in self._servers.items()
            if server.heard is not None and not server.lost and self.is_silent(now, name)
        ]
        for server in silent:
            server.lost = True
        return frozenset(server.info.name for server in silent)

    def is_any_there(self, now: float) -> bool:
        """Say whether some server was heard and is not silent."""
        return any(
            server.heard is not None and not self.is_silent(now, name)
            for name, server in self._servers.items()
        )

    def is_doubtful(self, now: float, name: str) -> bool:
        """Say whether a server is silent, was passed over or is gone."""
        gone = name not in self._servers
        return gone or self._servers[name].avoid_until > now or self.is_silent(now, name)

    def is_mute(self, now: float, name: str) -> bool:
        """Say whether an answer of this server is not worth waiting for: it owes one for long."""
        return self.is_silent(now, name) or self._owes(now, self._servers[name])

    def _owes(self, now: float, server: Server) -> bool:
        since = server.owes_since
        return since is not None and now - since > self.patience(server.info.name)

    def _far(self, now: float) -> float:
        """Return the round trip (seconds) beyond which a server comes behind the others."""
        known = (
            one.rtt.smoothed
            for name, one in self._servers.items()
            if one.rtt.smoothed is not None and not self.is_doubtful(now, name)
        )
        near = min(known, default=float("inf"))
        return self._settings.far_rtts * near + self._settings.far_s

    def sent(self, now: float, name: str, *, quick: bool = False) -> None:
        """Note that something that wants an answer went out; ``quick``: from the server alone."""
        server = self._servers[name]
        if server.waiting_since is None:
            server.waiting_since = now
        if quick and server.owes_since is None:
            server.owes_since = now

    def heard(self, now: float, name: str) -> bool:
        """Note a datagram from a server; True where it had been silent until now."""
        server = self._servers[name]
        returned = server.heard is None or self.is_silent(now, name)
        server.heard = now
        server.lost = False
        server.waiting_since = server.owes_since = None
        server.probes = 0
        if server.rtt.smoothed is None:
            return returned  # the probe measures it
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
        return now > self._silent_at(self._servers[name])

    def _silent_at(self, server: Server) -> float:
        if server.waiting_since is None:
            return float("inf")
        rtts = 3 * (server.rtt.smoothed or 0.0)
        return server.waiting_since + self._settings.server_silent_s + rtts

    def all_silent(self, now: float) -> bool:
        """Say whether every server owes an answer for too long."""
        return all(self.is_silent(now, name) for name in self._servers)

    def rtt(self) -> float:
        """Return the middle of the smoothed round trips (seconds): what a data tunnel may take.

        Nothing is known of the way to a peer before it stands. Where no server was measured
        either it is taken as UNKNOWN_RTT_S.
        """
        known = [s.rtt.smoothed for s in self._servers.values() if s.rtt.smoothed is not None]
        return statistics.median_high(known) if known else UNKNOWN_RTT_S

    def timeout(self) -> float:
        """Return how long a request waits before it is repeated, to all servers."""
        settings = self._settings
        return min(
            server.rtt.timeout(settings.request_unknown_rtt_s, settings.request_floor_s)
            for server in self._servers.values()
        )

    def probe_soon(self, now: float) -> None:
        """Have every server probed now: each learns from it where we are, and pushes there."""
        for server in self._servers.values():
            server.probe_at = now

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
        """Return when the next probe is due, or a server that owes an answer is late."""
        return min(self._next(server) for server in self._servers.values())

    def _next(self, server: Server) -> float:
        late = self._late_at(server)
        if late is None or server.lost or self._silent_at(server) <= late:
            return server.probe_at
        return min(server.probe_at, max(late, server.avoid_until))

    def status(self, now: float) -> tuple[ServerStatus, ...]:
        """Describe all servers, by name; none is preferred while none is known to answer."""
        best = self.best(now)
        return tuple(
            ServerStatus(
                name=name,
                control=str(server.info.control_address),
                rtt_ms=None if server.rtt.smoothed is None else server.rtt.smoothed * 1e3,
                last_heard_s=None if server.heard is None else now - server.heard,
                preferred=best is server,
            )
            for name, server in sorted(self._servers.items())
        )


def at_start(
    configured: tuple[ServerInfo, ...], learnt: tuple[ServerInfo, ...]
) -> tuple[ServerInfo, ...]:
    """Put what was configured and what a former run had learnt together; the latter is newer.

    A control address is one server's: where it has another key since, the configured one is gone.
    """
    names = {info.control_key: info.name for info in configured}
    newer = tuple(replace(one, name=names.get(one.control_key, one.name)) for one in learnt)
    return beside(newer, configured)


def beside(
    present: tuple[ServerInfo, ...], others: tuple[ServerInfo, ...]
) -> tuple[ServerInfo, ...]:
    """Add those of others that are no server that is present, by key or by control address."""
    keys = {info.control_key for info in present}
    addresses = {info.control_address for info in present}
    added = (
        info
        for info in others
        if info.control_key not in keys and info.control_address not in addresses
    )
    return (*present, *added)
