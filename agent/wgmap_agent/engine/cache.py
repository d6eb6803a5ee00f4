"""Mappings that were used lately, for a time when no map server answers (DESIGN, flow 8).

What a server in touch with the quorum confirmed, of peers whose tunnel stood. It is kept on disk,
so an agent that was rebooted meanwhile finds its peers again. An entry is recalled as an answer
without authority and without a version: whatever a server says is better. Revoked keys and
withdrawn prefixes leave at once. At most ``cache_peers``; the one confirmed longest ago makes room.
"""

from dataclasses import replace

from wgmap.addresses import Endpoint, IPAddress, IPNetwork
from wgmap.lisp.messages import Record
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.counters import Counters
from wgmap_agent.engine.settings import Settings
from wgmap_agent.engine.table import Claim, Table
from wgmap_agent.engine.types import Action, CachedPeer, SaveCache


class Cache:
    """The cached peers, in the order in which they were confirmed."""

    def __init__(
        self, settings: Settings, counters: Counters, peers: tuple[CachedPeer, ...] = ()
    ) -> None:
        """Begin with what a former run had saved."""
        self._settings = settings
        self._counters = counters
        self._peers: dict[PublicKey, CachedPeer] = {}
        self._table = Table(replace(settings, max_peers=settings.cache_peers + 1))
        self._save_at: float | None = None
        self._saved_at = float("-inf")
        for peer in sorted(peers, key=lambda one: one.confirmed):
            self._remember(peer)

    def __len__(self) -> int:
        return len(self._peers)

    def note(self, now: float, peer: CachedPeer) -> None:
        """Remember what was confirmed of a peer; older news of it change nothing."""
        known = self._peers.get(peer.key)
        if known is not None and known.confirmed >= peer.confirmed:
            return
        self._remember(peer)
        self.changed(now)

    def changed(self, now: float) -> None:
        """Have it saved, soon or a while after it was saved last."""
        if self._save_at is None:
            settings = self._settings
            spaced = self._saved_at + settings.cache_save_s
            self._save_at = max(now + settings.cache_first_s, spaced)

    def find(self, now: float, address: IPAddress) -> tuple[Record, ...]:
        """Return the records of the peer of an address, fit for recall; empty: unknown."""
        claim = self._table.owner(address)
        return () if claim is None else self._recall(now, claim.key)

    def at(self, now: float, endpoint: Endpoint) -> tuple[Record, ...]:
        """Return the records of the peer that was at an endpoint; empty: unknown."""
        for key, peer in self._peers.items():
            for record in peer.records:
                if any(Endpoint(one.address, one.port) == endpoint for one in record.locators):
                    return self._recall(now, key)
        return ()

    def confirmed(self, key: PublicKey) -> float | None:
        """Return when a peer was confirmed; None: it is not here."""
        peer = self._peers.get(key)
        return None if peer is None else peer.confirmed

    def forget(self, now: float, key: PublicKey) -> None:
        """Drop a peer: its key was revoked."""
        if key in self._peers:
            self._drop(key)
            self._counters.add("cache.dropped")
            self._save_at = now  # before a crash can bring it back

    def forget_prefix(self, now: float, prefix: IPNetwork) -> None:
        """Drop the peer that owns the address space of this prefix, as far as is known here."""
        claim = self._table.get(prefix) or self._table.owner(prefix.network_address)
        if claim is not None:
            self.forget(now, claim.key)

    def due(self, now: float, revocation: int | None) -> list[Action]:
        """Save where it is time to; ``revocation``: the last one that is known."""
        if self._save_at is None or self._save_at > now:
            return []
        return [self.save(now, revocation)]

    def save(self, now: float, revocation: int | None) -> SaveCache:
        """Return the whole for the disk."""
        self._save_at, self._saved_at = None, now
        self._expire(now)
        return SaveCache(tuple(self._peers.values()), revocation)

    def deadline(self) -> float | None:
        """Return when ``due`` has something to do."""
        return self._save_at

    def _recall(self, now: float, key: PublicKey) -> tuple[Record, ...]:
        peer = self._peers[key]
        if self._is_old(now, peer):
            self._drop(key)
            return ()
        return tuple(
            replace(record, version=0, authoritative=False)
            for record in peer.records
            if (claim := self._table.get(record.eid.prefix)) is not None and claim.key == key
        )

    def _remember(self, peer: CachedPeer) -> None:
        if not self._settings.cache_peers:
            return
        self._drop(peer.key)
        while len(self._peers) >= self._settings.cache_peers:
            self._drop(next(iter(self._peers)))
        self._peers[peer.key] = peer
        for record in peer.records:
            self._claim(Claim(record.eid.prefix, peer.key, 0, 0.0))

    def _claim(self, claim: Claim) -> None:
        former = self._table.get(claim.prefix)
        self._table.offer(claim)
        if former is not None and not self._table.prefixes(former.key):
            self._peers.pop(former.key, None)

    def _drop(self, key: PublicKey) -> None:
        self._table.drop_key(key)
        self._peers.pop(key, None)

    def _expire(self, now: float) -> None:
        for key in [key for key, peer in self._peers.items() if self._is_old(now, peer)]:
            self._drop(key)

    def _is_old(self, now: float, peer: CachedPeer) -> bool:
        return now - peer.confirmed >= self._settings.unconfirmed_s
