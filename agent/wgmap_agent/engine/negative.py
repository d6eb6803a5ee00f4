"""Negative answers, believed for a short time, and how often senders are told."""

from collections.abc import Iterable

from wgmap.addresses import IPAddress, IPNetwork
from wgmap.lisp.messages import Action as Act
from wgmap.lisp.messages import Record
from wgmap_agent.engine.mappings import is_denial
from wgmap_agent.engine.settings import Settings
from wgmap_agent.engine.types import Refusal


class Negative:
    """Destinations that are known not to exist; the oldest makes room."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._until: dict[IPAddress, tuple[float, Refusal]] = {}
        self._tokens = settings.refusals_per_s
        self._filled_at = 0.0

    def __len__(self) -> int:
        return len(self._until)

    def note(
        self, now: float, destination: IPAddress, record: Record, *, authoritative: bool
    ) -> Refusal:
        """Remember a negative answer; returns what the senders are told."""
        refusal = Refusal.PROHIBITED if is_denial(record) else Refusal.UNREACHABLE
        self._until.pop(destination, None)
        while len(self._until) >= self._settings.max_negative:
            del self._until[next(iter(self._until))]
        self._until[destination] = (now + self._lifetime(record, authoritative), refusal)
        return refusal

    def get(self, now: float, destination: IPAddress) -> Refusal | None:
        """Return what senders to this destination are told; None: nothing is known."""
        known = self._until.get(destination)
        if known is None:
            return None
        if known[0] <= now:
            del self._until[destination]
            return None
        return known[1]

    def over(self, prefixes: Iterable[IPNetwork]) -> None:
        """Forget what was said of destinations in prefixes that somebody has now."""
        if not self._until:
            return
        for prefix in prefixes:
            if prefix.prefixlen == prefix.max_prefixlen:
                self._until.pop(prefix.network_address, None)
                continue
            for address in [one for one in self._until if one in prefix]:
                del self._until[address]

    def unknown(self, now: float) -> tuple[IPAddress, ...]:
        """Return the destinations that are refused now."""
        return tuple(one for one, (until, _) in self._until.items() if now < until)

    def may_refuse(self, now: float) -> bool:
        """Take a token of the limit on ICMP errors."""
        rate = self._settings.refusals_per_s
        self._tokens = min(rate, self._tokens + (now - self._filled_at) * rate)
        self._filled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _lifetime(self, record: Record, authoritative: bool) -> float:
        settings = self._settings
        if not authoritative:
            return settings.unsure_negative_s
        if record.action is Act.SEND_MAP_REQUEST:
            return settings.unknown_s
        return min(settings.negative_s, record.ttl_min * 60.0)
