"""A WireGuard device that lives in memory and keeps to the rules of the real one."""

import errno
from dataclasses import replace

from wgmap.addresses import IPNetwork
from wgmap.wg.device import DeviceConfig, DeviceError, DeviceState, PeerConfig, PeerState
from wgmap.wg.keys import PublicKey


class FakeDevice:
    """Cryptokey routing as in the kernel: a prefix belongs to one peer, the last that got it."""

    def __init__(self, name: str = "wg-fake") -> None:
        self.name = name
        self.public_key: PublicKey | None = None
        self.listen_port = 0
        self.peers: dict[PublicKey, PeerState] = {}
        self.requests: list[DeviceConfig] = []
        self.reads = 0
        self.failures: list[int] = []  # errnos of the next requests

    async def configure(self, config: DeviceConfig) -> None:
        self._fail("refused")
        self.requests.append(config)
        if config.private_key is not None:
            self.public_key = config.private_key.public
        if config.listen_port is not None:
            self.listen_port = config.listen_port
        for peer in config.peers:
            self._configure_peer(peer)

    async def read(self) -> DeviceState:
        self._fail("unreadable")
        self.reads += 1
        return DeviceState(self.name, self.public_key, self.listen_port, dict(self.peers))

    async def close(self) -> None:
        self.failures = [errno.EBADF] * 1000

    def shake(self, key: PublicKey, at: float, rx_bytes: int = 148) -> None:
        """Complete a handshake at a wall time."""
        old = self.peers[key]
        self.peers[key] = replace(old, last_handshake=at, rx_bytes=old.rx_bytes + rx_bytes)

    def _fail(self, what: str) -> None:
        if self.failures:
            raise DeviceError(self.name, self.failures.pop(0), what)

    def _configure_peer(self, change: PeerConfig) -> None:
        if change.remove:
            self.peers.pop(change.key, None)
            return
        if change.update_only and change.key not in self.peers:
            return
        old = self.peers.get(change.key, PeerState(change.key, None, (), 0, None, 0, 0))
        self.peers[change.key] = replace(
            old,
            endpoint=old.endpoint if change.endpoint is None else change.endpoint,
            keepalive_s=old.keepalive_s if change.keepalive_s is None else change.keepalive_s,
        )
        if change.allowed_ips is not None:
            self._route(change.key, change.allowed_ips)

    def _route(self, key: PublicKey, prefixes: tuple[IPNetwork, ...]) -> None:
        for other, state in self.peers.items():
            left = tuple(prefix for prefix in state.allowed_ips if prefix not in prefixes)
            self.peers[other] = replace(state, allowed_ips=left)
        self.peers[key] = replace(self.peers[key], allowed_ips=prefixes)
