"""Which peers the control interface must have, and what to change for that; no I/O.

The table of peers may have a hundred thousand rows and change all the time, so the plan does not
compare everything with everything: it knows what the device has, and which keys to look at.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from itertools import chain, islice
from typing import TypeAlias

from wgmap.addresses import Endpoint, IPNetwork, host_prefix
from wgmap.wg.device import DeviceState, Look, PeerConfig, PeerState
from wgmap.wg.keys import KEY_BYTES, PublicKey
from wgmap_cluster.fsm.rows import PeerRow

BATCH = 500  # peers in one request: what one netlink message of the kernel backend carries
CALL_KEEPALIVE_S = 25  # from 0 to this sends at once; taken back at the next comparison
SILENT_S = 180.0  # REJECT_AFTER_TIME: whatever session there was has ended
_NEVER = float("-inf")
_Allowed: TypeAlias = tuple[IPNetwork, ...]


class ControlPlan:
    """Wanted peers (from the replicated table) against installed ones (from the device)."""

    def __init__(self) -> None:
        self._keys: dict[str, PublicKey] = {}  # peer name -> control key
        self._by_address: dict[IPv6Address, PublicKey] = {}
        self._wanted: dict[PublicKey, _Allowed] = {}
        self._installed: dict[PublicKey, _Allowed] = {}
        self._removals: dict[PublicKey, None] = {}
        self._settings: dict[PublicKey, None] = {}
        self._saved: dict[PublicKey, Endpoint] = {}

    def __len__(self) -> int:
        return len(self._wanted)

    @property
    def pending(self) -> bool:
        """Whether the device differs from the table as far as is known."""
        return bool(self._removals or self._settings)

    def change(self, name: str, row: PeerRow | None) -> None:
        """Take a row that was set, or None where it is gone."""
        if (old := self._keys.pop(name, None)) is not None:
            self._forget(old)
        if row is None or row.revoked or len(row.control_key) != KEY_BYTES:
            return  # plain LISP clients have no key
        key = self._keys[name] = PublicKey(row.control_key)
        address = IPv6Address(row.control_address)
        self._wanted[key] = (host_prefix(address),)
        self._by_address[address] = key
        self._mark(key)

    def replace(self, rows: Mapping[str, PeerRow]) -> None:
        """Take the whole table."""
        for name in [name for name in self._keys if name not in rows]:
            self.change(name, None)
        for name, row in rows.items():
            self.change(name, row)

    def observe(self, state: DeviceState) -> None:
        """Take what the device really has; everything that differs is pending from then on."""
        installed = {key: peer.allowed_ips for key, peer in state.peers.items()}
        self._removals = {key: None for key in installed if key not in self._wanted}
        self._settings = {}
        for key, wanted in self._wanted.items():
            found = installed.get(key)
            if found != wanted:
                self._settings[key] = None
            else:  # the same values, which the next reading has again: they compare fast
                self._wanted[key] = found
        self._installed = installed
        self._saved = {key: self._saved[key] for key in self._settings if key in self._saved}

    def remember(self, endpoints: Mapping[PublicKey, Endpoint]) -> None:
        """Take where peers were before a reboot: those that are added now are called there."""
        self._saved = dict(endpoints)

    @property
    def calling(self) -> bool:
        """Whether adding peers starts handshakes, so that it should go slowly."""
        return bool(self._saved)

    def batch(self, limit: int = BATCH) -> tuple[PeerConfig, ...]:
        """Return the next changes, removals before all others; ``done`` tells they were made.

        An address that goes from one key to another is so never with both.
        """
        keys = islice(chain(self._removals, self._settings), limit)
        return tuple(self._config(key) for key in keys)

    def done(self, batch: tuple[PeerConfig, ...]) -> None:
        """Take note that the device has these changes."""
        for peer in batch:
            if peer.remove:
                self._installed.pop(peer.key, None)
            elif peer.allowed_ips is not None:
                self._installed[peer.key] = peer.allowed_ips
            self._saved.pop(peer.key, None)
            self._mark(peer.key)

    def wants(self, key: PublicKey) -> bool:
        """Say whether a peer of this key is enrolled."""
        return key in self._wanted

    def key_of(self, address: IPv6Address) -> PublicKey | None:
        """Return the control key behind a control address."""
        return self._by_address.get(address)

    def quieted(self, state: DeviceState) -> tuple[PeerConfig, ...]:
        """Return the changes that end the keepalives of peers that were called."""
        return tuple(
            PeerConfig(key, keepalive_s=0, update_only=True)
            for key, peer in state.peers.items()
            if peer.keepalive_s and key in self._wanted
        )

    def renewal(self, state: PeerState) -> tuple[PeerConfig, PeerConfig] | None:
        """Return the changes that make a peer anew where it is; None where it is not wanted."""
        if (allowed := self._wanted.get(state.key)) is None:
            return None
        return (
            PeerConfig(state.key, remove=True),
            PeerConfig(state.key, state.endpoint, allowed, keepalive_s=0),
        )

    def wanted(self) -> tuple[PublicKey, ...]:
        """Return the keys of the enrolled peers."""
        return tuple(self._wanted)

    def _forget(self, key: PublicKey) -> None:
        (network,) = self._wanted.pop(key)
        self._by_address.pop(IPv6Address(network.network_address.packed), None)
        self._mark(key)

    def _mark(self, key: PublicKey) -> None:
        self._removals.pop(key, None)
        self._settings.pop(key, None)
        wanted = self._wanted.get(key)
        if wanted != self._installed.get(key):
            (self._settings if wanted else self._removals)[key] = None

    def _config(self, key: PublicKey) -> PeerConfig:
        allowed = self._wanted.get(key)
        if allowed is None:
            return PeerConfig(key, remove=True)
        endpoint = None if key in self._installed else self._saved.get(key)
        if endpoint is None:
            return PeerConfig(key, allowed_ips=allowed)
        return PeerConfig(key, endpoint, allowed, CALL_KEEPALIVE_S)


def reachable(wanted: Iterable[PublicKey], look: Look, wall_now: float) -> int:
    """Count the wanted peers with a handshake younger than 180 s; for people. Raises DeviceError.

    Peers of a table that is not in force any more (an empty cluster found them on its
    interface) do not count: nothing that they send is served.
    """
    return sum(wall_now - (look.handshake_s(key) or _NEVER) < SILENT_S for key in wanted)


@dataclass(slots=True)
class _Sign:
    rx_bytes: int
    last_handshake: float
    at: float  # when it was seen to change


@dataclass(slots=True)
class Silence:
    """Who has not been heard for how long, by our clock alone (handshakes carry wall time).

    A silent peer is made anew from time to time: WireGuard refuses handshakes that are older
    than the last one it took, so an agent whose wall clock went back would be locked out for as
    long as the server remembers.
    """

    _signs: dict[PublicKey, _Sign] = field(default_factory=dict)

    def observe(self, now: float, state: DeviceState) -> None:
        """Take a reading of the device."""
        self._signs = {key: self._sign(now, peer) for key, peer in state.peers.items()}

    def due(self, now: float, limit: int) -> list[PublicKey]:
        """Return peers to be made anew, those silent for longest first; their time starts over."""
        silent = [key for key, sign in self._signs.items() if now - sign.at >= SILENT_S]
        chosen = sorted(silent, key=lambda key: self._signs[key].at)[:limit]
        for key in chosen:
            self._signs[key] = _Sign(0, 0.0, now)
        return chosen

    def _sign(self, now: float, peer: PeerState) -> _Sign:
        handshake = peer.last_handshake or 0.0
        old = self._signs.get(peer.key)
        heard = old is None or peer.rx_bytes > old.rx_bytes or handshake > old.last_handshake
        return _Sign(peer.rx_bytes, handshake, now if heard or old is None else old.at)
