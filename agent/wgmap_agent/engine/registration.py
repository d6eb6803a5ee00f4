"""Map-Register: this agent's own mapping, kept alive on the servers.

One server is asked at a time, the preferred one first, the next where no answer comes within a few
round trips, sooner where the one that was asked says nothing while others do. A register with the
same content repeats the same bytes; every change takes the next nonce, which is saved
before it is sent. An agent that lost its counter is told the stored nonce and goes on from there.
"""

import random
from dataclasses import replace

from wgmap.addresses import IPAddress
from wgmap.lisp import codec
from wgmap.lisp.mark import OF_REGISTER, UNKNOWN, Mark, marked
from wgmap.lisp.messages import Eid, Locator, MapNotify, MapRegister, Record
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.counters import Counters
from wgmap_agent.engine.locators import own_ranks
from wgmap_agent.engine.servers import Servers
from wgmap_agent.engine.settings import Settings
from wgmap_agent.engine.types import Action, Identity, Save, SavedState, Send

MAX_NONCE = (1 << 64) - 1


class Registration:
    """The register that is wanted, what is acknowledged of it, and when it is sent again."""

    def __init__(
        self,
        identity: Identity,
        saved: SavedState,
        servers: Servers,
        settings: Settings,
        rng: random.Random,
        counters: Counters,
    ) -> None:
        self._identity = identity
        self._servers = servers
        self._settings = settings
        self._rng = rng
        self._counters = counters
        self._nonce = saved.nonce
        self._records: tuple[Record, ...] = ()
        self._datagram = b""
        self._acknowledged: float | None = None  # when the present content last was
        self._next_at: float | None = None
        self._timeout = settings.register_first_s
        self._tries = 0
        self._sent: dict[str, float] = {}  # tries of this round: server -> when

    @property
    def nonce(self) -> int:
        """Return the nonce of the present register."""
        return self._nonce

    def saved(self) -> SavedState:
        """Return what must be on disk."""
        revocations = self._servers.revocations
        learnt = self._servers.learnt()
        return SavedState(self._nonce, revocations.number, revocations.keys, learnt)

    def is_registered(self, now: float) -> bool:
        """Say whether the present content is acknowledged and not past its TTL."""
        ttl_s = self._identity.ttl_min * 60.0
        return self._acknowledged is not None and now - self._acknowledged < ttl_s

    @property
    def key(self) -> PublicKey:
        """Return the data key that is registered."""
        return self._identity.data_key

    def use_key(self, key: PublicKey, port: int) -> None:
        """Register this data key and port with the next ``change``."""
        self._identity = replace(self._identity, data_key=key, data_port=port)

    def change(self, now: float, underlay: tuple[IPAddress, ...]) -> list[Action]:
        """Register at these underlay addresses: a change, hence a new nonce."""
        if not underlay:
            return []  # the old mapping stays: nothing better is known
        who = self._identity
        locators = tuple(
            Locator(
                *(address, who.data_port, who.data_key),
                priority=priority,
                weight=weight,
                local=True,
            )
            for address, priority, weight in own_ranks(underlay, who.ranks)
        )
        if not locators:
            self._counters.add("register.no_locator")
            return []
        self._records = tuple(
            Record(Eid(prefix, self._identity.instance), locators, self._identity.ttl_min)
            for prefix in self._identity.prefixes
        )
        return self._renumber(now, self._nonce + 1)

    def notify(self, now: float, server: str, notify: MapNotify) -> list[Action] | None:
        """Take in a Map-Notify of our own prefixes; None where it answers no register."""
        if not self._records or server not in self._sent:
            return None
        if notify.nonce > self._nonce or not self._is_ours(notify):
            if notify.nonce < self._nonce:
                return []  # an old answer that was long on its way
            self._counters.add("register.counter_recovered")
            return self._renumber(now, min(notify.nonce + 1, MAX_NONCE))
        if notify.nonce == self._nonce:
            self._acknowledge(now)
        return []

    def repeat_soon(self, now: float) -> None:
        """Repeat an acknowledged register soon; spread, so that a fleet does not as one."""
        if self._acknowledged is not None and self._next_at is not None:
            soon = now + self._settings.repeat_spread_s * self._rng.random()
            self._next_at = min(self._next_at, soon)

    def due(self, now: float) -> list[Action]:
        """Send the register where it is time to."""
        at = self.deadline()
        return [] if at is None or at > now else self._send(now)

    def deadline(self) -> float | None:
        """Return when ``due`` has something to do."""
        times = (self._next_at, self._hurried_at())
        return min((time for time in times if time is not None), default=None)

    def _hurried_at(self) -> float | None:
        """Return when another server is asked because the last one says nothing and others do."""
        if not self._sent or self._tries == 0:
            return None
        name, at = next(reversed(self._sent.items()))
        return self._servers.outrun_at(name, at)

    def _is_ours(self, notify: MapNotify) -> bool:
        """Compare what the server stored with what we registered, where it shows locators.

        Servers leave out locators that we may not have (the RLOC rule): to take that for another
        one's register would mean to register for ever.
        """
        wanted = {(one.address, one.port, one.key) for one in self._records[0].locators}
        return all(
            {(one.address, one.port, one.key) for one in record.locators} <= wanted
            for record in notify.records
            if record.locators
        )

    def _acknowledge(self, now: float) -> None:
        # Not taken as a round trip of the server: a commit takes some between servers as well.
        self._acknowledged = now
        self._tries = 0
        self._timeout = self._first_timeout()
        wait = min(self._settings.refresh_s, self._identity.ttl_min * 60.0 / 3)
        self._next_at = now + wait * self._rng.uniform(0.8, 1.0)

    def _renumber(self, now: float, nonce: int) -> list[Action]:
        self._nonce = nonce
        unmarked = Mark(UNKNOWN, 0).xtr()
        self._datagram = codec.encode(MapRegister(nonce, self._records, xtr=unmarked))
        self._acknowledged = None
        self._tries = 0
        self._sent.clear()
        self._timeout = self._first_timeout()
        return [Save(self.saved()), *self._send(now)]

    def _first_timeout(self) -> float:
        """Return the first wait: a commit takes round trips between servers, an answer none."""
        return self._settings.register_first_s + 4 * self._servers.rtt()

    def _send(self, now: float) -> list[Action]:
        if self._tries == 0:
            self._sent.clear()
        # The preferred one first, then those not tried yet, then the one tried longest ago.
        name = min(self._servers.names(now), key=lambda one: self._sent.get(one, -1.0))
        self._tries += 1
        self._sent.pop(name, None)
        self._sent[name] = now  # the last one is the one that was asked last
        self._servers.sent(now, name)
        self._next_at = now + self._timeout
        self._timeout = min(self._timeout * 1.5, self._settings.register_cap_s)
        self._counters.add("register.sent")
        mark = self._servers.mark(name)._replace(since=OF_REGISTER)
        return [Send(name, marked(self._datagram, mark))]
