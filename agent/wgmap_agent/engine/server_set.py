"""Which map servers there are: itself a mapping, under the control prefix.

The configured list is only the start. The agent asks for the control prefix, is told of changes
(it is subscribed by asking, and asks again within the TTL), and takes what a server in touch with
the quorum says: one record for each server, its control address with its key and endpoint. Where
every server is silent for long, those of the start are tried again beside the others.

Each server tells of changes whoever asked it. The first answer says what the set is; the question
is repeated until every server that is there has answered it, since a change may come just when
those that did are gone.
"""

import random
from collections.abc import Iterable

from wgmap.addresses import Endpoint
from wgmap.lisp.messages import Record
from wgmap.wg.keys import KEY_BYTES, PublicKey
from wgmap_agent.engine.control import ControlTunnels
from wgmap_agent.engine.counters import Counters
from wgmap_agent.engine.mappings import is_inside
from wgmap_agent.engine.packets import is_unicast
from wgmap_agent.engine.requests import Answer, Requests
from wgmap_agent.engine.servers import Servers, beside
from wgmap_agent.engine.settings import Settings
from wgmap_agent.engine.types import Action, Identity, ServerInfo, UseServers


class ServerSet:
    """Follows the servers of the cluster."""

    def __init__(
        self,
        identity: Identity,
        servers: Servers,
        control: ControlTunnels,
        settings: Settings,
        rng: random.Random,
        counters: Counters,
    ) -> None:
        self._identity = identity
        self._servers = servers
        self._control = control
        self._settings = settings
        self._rng = rng
        self._counters = counters
        self._ask_at = float("inf")
        self._look_at = float("inf")  # when it is seen whether all servers know that we ask
        self._noted: set[str] = set()  # servers that do
        self._tries = 0
        self._silent_since: float | None = None

    def start(self, now: float) -> None:
        """Begin; spread, so that a fleet does not ask as one."""
        self._ask_at = now + self._settings.servers_first_s * self._rng.uniform(0.5, 1.0)

    def due(self, now: float, requests: Requests) -> list[Action]:
        """Ask where it is time to."""
        if now < self.deadline():
            return []
        if now < self._ask_at and not self._is_unknown(now):
            self._look_at = float("inf")
            return []
        settings = self._settings
        self._ask_at = now + settings.servers_retry_s * self._rng.uniform(0.8, 1.0)
        wait = settings.servers_retry_s * 2 ** min(self._tries, 10)
        self._look_at = now + min(wait, settings.servers_again_s) * self._rng.uniform(0.8, 1.0)
        self._tries += 1
        self._counters.add("servers.asked")
        question = requests.ask(now, self._identity.control_prefix, everybody=True)
        return [*self._start_again(now), *question]

    def lost(self, now: float, name: str) -> None:
        """Ask again: a server lost who asked it."""
        self._noted.discard(name)
        self._soon(now)

    def noted(self, name: str) -> None:
        """Note that a server spoke of the set: it will tell of changes."""
        self._noted.add(name)

    def _soon(self, now: float) -> None:
        """Ask soon, if need be. Spread, for a fleet notices it at one time."""
        self._tries = 0
        soon = now + self._settings.servers_soon_s * self._rng.random()
        self._look_at = min(self._look_at, soon)

    def _is_unknown(self, now: float) -> bool:
        """Say whether a server is there that does not know that we ask."""
        unknown = (name for name in self._servers.names(now) if name not in self._noted)
        return not all(self._servers.is_silent(now, name) for name in unknown)

    def deadline(self) -> float:
        """Return when ``due`` has something to do."""
        return min(self._ask_at, self._look_at)

    def is_about(self, records: Iterable[Record]) -> bool:
        """Say whether some record lies in the control prefix."""
        return any(is_inside(one.eid.prefix, self._identity.control_prefix) for one in records)

    def answered(self, now: float, answer: Answer) -> list[Action]:
        """Take in the answer to the question for the control prefix."""
        return self.told(now, answer.records) if answer.authoritative else []

    def pushed(self, now: float, records: tuple[Record, ...]) -> list[Action]:
        """Take in what a server tells unasked; without authority it says that something changed."""
        if not all(record.authoritative for record in records):
            self._counters.add("servers.unsure")
            self._noted.clear()
            self._soon(now)
        return self.told(now, records)

    def told(self, now: float, records: tuple[Record, ...]) -> list[Action]:
        """Take in the whole set, from an answer or a push; one without authority says nothing."""
        if not records or not all(record.authoritative for record in records):
            return []
        infos = tuple(info for one in records if (info := self._info(one)) is not None)
        if len(infos) != len(records):
            self._counters.add("servers.refused")
            return []  # half a set would drop the other half
        ttl_s = min(record.ttl_min for record in records) * 60.0
        again = min(self._settings.servers_again_s, ttl_s / 2)
        self._ask_at = now + again * self._rng.uniform(0.8, 1.0)
        return self._use(now, infos)

    def _use(self, now: float, infos: tuple[ServerInfo, ...]) -> list[Action]:
        before = {server.info.control_key: server.info for server in self._servers.all()}
        kept = infos[: self._settings.max_servers]
        if set(kept) == set(before.values()):
            return []
        self._counters.add("servers.changed")
        self._servers.use(now, kept)
        self._noted &= set(self._servers.names(now))
        use = UseServers(tuple(server.info for server in self._servers.all()))
        return [use, *self._control.follow(now, tuple(before.values()))]

    def _start_again(self, now: float) -> list[Action]:
        names = self._servers.names(now)
        if not all(self._servers.is_silent(now, name) for name in names):
            self._silent_since = None
            return []
        if self._silent_since is None:
            self._silent_since = now
        if now - self._silent_since < self._settings.servers_lost_s:
            return []
        present = tuple(server.info for server in self._servers.all())
        return self._use(now, beside(present, self._identity.servers))

    def _info(self, record: Record) -> ServerInfo | None:
        """Read one server; None where it is none that an agent could use."""
        prefix, identity = record.eid.prefix, self._identity
        if record.eid.instance != identity.instance or prefix.version != 6:
            return None
        if prefix.num_addresses != 1 or not is_inside(prefix, identity.control_prefix):
            return None
        if prefix.network_address == identity.control_address or not record.ttl_min:
            return None
        at = next((one for one in record.locators if one.key and not one.key_revoked), None)
        if at is None or at.key is None or len(at.key) != KEY_BYTES:
            return None
        if not is_unicast(at.address) or not 0 < at.port < 65536:
            return None
        key = PublicKey(at.key)
        address = prefix.network_address
        name = self._name(key) or str(address)
        return ServerInfo(name, key, Endpoint(at.address, at.port), address)

    def _name(self, key: PublicKey) -> str | None:
        """Return the name of a server; records have none, so a new one is called by its address."""
        known = (*(server.info for server in self._servers.all()), *self._identity.servers)
        return next((info.name for info in known if info.control_key == key), None)
