"""The one table prefix -> key, by version: AllowedIPs and routes are made from it and nothing else.

A prefix belongs to one peer of a device (cryptokey routing): were two sources to write AllowedIPs,
a late push could steal a prefix back from its new owner.
"""

from dataclasses import dataclass
from enum import Enum, auto

from wgmap.addresses import IPAddress, IPNetwork, host_prefix
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.settings import Settings

VERSIONS = 1 << 12


def is_newer(version: int, than: int) -> bool:
    """Compare Map-Versions (RFC 9302, section 6.1); 0 means "none" and is never newer."""
    return version != 0 and (than == 0 or 0 < (version - than) % VERSIONS < VERSIONS // 2)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a message says: this prefix belongs to that key."""

    prefix: IPNetwork
    key: PublicKey
    version: int
    expires: float


class Verdict(Enum):
    """What the table made of a claim."""

    NEW = auto()
    RENEWED = auto()
    MOVED = auto()  # it was another key's
    STALE = auto()
    FULL = auto()


class Table:
    """Prefixes and their owners; bounded by peers and by prefixes a peer."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._claims: dict[IPNetwork, Claim] = {}
        self._owned: dict[PublicKey, set[IPNetwork]] = {}
        self._ordered: dict[PublicKey, tuple[IPNetwork, ...]] = {}  # made when asked for
        self._withdrawn: dict[IPNetwork, int] = {}
        self._lengths: dict[int, dict[int, int]] = {4: {}, 6: {}}  # how many of each length

    def offer(self, claim: Claim, *, wins: bool = False) -> Verdict:
        """Take a claim in by its version; ``wins``: the answer to one's own refresh."""
        known = self._claims.get(claim.prefix)
        if not wins and self._is_stale(claim, known):
            return Verdict.STALE
        if self._is_full(claim, known):
            return Verdict.FULL
        if known is not None:
            self._forget(known)
        self._withdrawn.pop(claim.prefix, None)
        self._remember(claim)
        if known is None:
            return Verdict.NEW
        return Verdict.RENEWED if known.key == claim.key else Verdict.MOVED

    def disputes(self, prefix: IPNetwork, key: PublicKey, version: int) -> bool:
        """Say whether a claim is stale here although the prefix is another key's, or nobody's."""
        known = self._claims.get(prefix)
        if known is not None and known.key == key:
            return False
        return self._is_stale(Claim(prefix, key, version, 0.0), known)

    def foreign_inside(self, prefix: IPNetwork, key: PublicKey) -> tuple[IPNetwork, ...]:
        """Return the prefixes inside this one that belong to other keys."""
        longest = max(self._lengths[prefix.version], default=0)
        if longest <= prefix.prefixlen:
            return ()  # the usual case: hosts
        return tuple(
            claim.prefix
            for claim in self._claims.values()
            if claim.key != key
            and claim.prefix.version == prefix.version
            and claim.prefix.prefixlen > prefix.prefixlen
            and claim.prefix.network_address in prefix
        )

    def is_from(self, prefix: IPNetwork, version: int) -> bool:
        """Say whether a prefix is here with that version, or an older one."""
        known = self._claims.get(prefix)
        return known is not None and not (version and is_newer(known.version, version))

    def withdraw(self, prefix: IPNetwork, version: int) -> Claim | None:
        """Drop a prefix unless the table has a newer version; return what was dropped."""
        known = self._claims.get(prefix)
        if known is not None and version and is_newer(known.version, version):
            return None
        self._note_withdrawn(prefix, version or (known.version if known else 0))
        if known is not None:
            self._forget(known)
        return known

    def drop(self, prefix: IPNetwork) -> None:
        """Forget a prefix without remembering that it was withdrawn."""
        known = self._claims.get(prefix)
        if known is not None:
            self._forget(known)

    def drop_key(self, key: PublicKey) -> tuple[IPNetwork, ...]:
        """Forget a peer; return the prefixes that were its own."""
        prefixes = self.prefixes(key)
        for prefix in prefixes:
            self.drop(prefix)
        return prefixes

    def owner(self, address: IPAddress) -> Claim | None:
        """Find the longest prefix that holds an address."""
        packed = int(address)
        bits = address.max_prefixlen
        for length in sorted(self._lengths[address.version], reverse=True):
            network = host_prefix(address) if length == bits else _cut(address, packed, length)
            claim = self._claims.get(network)
            if claim is not None:
                return claim
        return None

    def get(self, prefix: IPNetwork) -> Claim | None:
        """Return the claim of exactly this prefix."""
        return self._claims.get(prefix)

    def prefixes(self, key: PublicKey) -> tuple[IPNetwork, ...]:
        """Return a peer's prefixes in a fixed order."""
        if key not in self._owned:
            return ()
        if key not in self._ordered:
            self._ordered[key] = tuple(sorted(self._owned[key], key=_order))
        return self._ordered[key]

    def owners(self) -> tuple[PublicKey, ...]:
        """Return the peers that own something."""
        return tuple(self._owned)

    def claims(self) -> tuple[Claim, ...]:
        """Return everything."""
        return tuple(self._claims.values())

    def __len__(self) -> int:
        return len(self._claims)

    def _is_stale(self, claim: Claim, known: Claim | None) -> bool:
        withdrawn = self._withdrawn.get(claim.prefix)
        if withdrawn is not None and not is_newer(claim.version, withdrawn):
            return True
        if known is None or is_newer(claim.version, known.version):
            return False
        if known.version == claim.version == 0:
            return False  # a server that uses no versions: the last word counts
        return known.version != claim.version or known.key != claim.key

    def _is_full(self, claim: Claim, known: Claim | None) -> bool:
        owned = self._owned.get(claim.key)
        if owned is None:
            return len(self._owned) >= self._settings.max_peers
        has_it = known is not None and known.key == claim.key
        return not has_it and len(owned) >= self._settings.max_prefixes_per_peer

    def _remember(self, claim: Claim) -> None:
        self._claims[claim.prefix] = claim
        self._ordered.pop(claim.key, None)
        self._owned.setdefault(claim.key, set()).add(claim.prefix)
        lengths = self._lengths[claim.prefix.version]
        lengths[claim.prefix.prefixlen] = lengths.get(claim.prefix.prefixlen, 0) + 1

    def _forget(self, claim: Claim) -> None:
        del self._claims[claim.prefix]
        self._ordered.pop(claim.key, None)
        owned = self._owned[claim.key]
        owned.discard(claim.prefix)
        if not owned:
            del self._owned[claim.key]
        lengths = self._lengths[claim.prefix.version]
        lengths[claim.prefix.prefixlen] -= 1
        if not lengths[claim.prefix.prefixlen]:
            del lengths[claim.prefix.prefixlen]

    def _note_withdrawn(self, prefix: IPNetwork, version: int) -> None:
        self._withdrawn.pop(prefix, None)
        while len(self._withdrawn) >= self._settings.max_withdrawn:
            del self._withdrawn[next(iter(self._withdrawn))]
        self._withdrawn[prefix] = version


def _cut(address: IPAddress, packed: int, length: int) -> IPNetwork:
    shift = address.max_prefixlen - length
    return type(host_prefix(address))((packed >> shift << shift, length))


def _order(prefix: IPNetwork) -> tuple[int, int, int]:
    return prefix.version, int(prefix.network_address), prefix.prefixlen
