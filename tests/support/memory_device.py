"""A WireGuard device in memory: keeps peers as a real one does, and can be made to refuse."""

import asyncio
import errno
from collections.abc import Awaitable
from dataclasses import replace

from wgmap.wg.device import (
    DeviceConfig,
    DeviceError,
    DeviceState,
    Look,
    PeerConfig,
    PeerState,
)
from wgmap.wg.keys import PublicKey


class StateLook:
    """A look at a state that is known."""

    def __init__(self, state: DeviceState) -> None:
        self._peers = state.peers

    def peer(self, key: PublicKey) -> PeerState | None:
        """Return what is known of a peer."""
        return self._peers.get(key)

    def handshake_s(self, key: PublicKey) -> int:
        """Return when its last handshake was."""
        peer = self._peers.get(key)
        return 0 if peer is None else int(peer.last_handshake or 0)


class MemoryDevice:
    """Behaves like a device: differences are applied, a prefix has one owner, removal is total."""

    def __init__(self, name: str = "wg") -> None:
        self.name = name
        self.peers = dict[bytes, PeerState]()
        self.log: list[DeviceConfig] = []
        self.reads = 0
        self.slow = False
        self.read_s = 0.0
        self.refuses: int | None = None  # an errno

    def begin(self, config: DeviceConfig) -> Awaitable[None] | None:
        """Apply a difference at once, or later where it is ``slow``."""
        if self.slow:
            return self.configure(config)
        self._configure(config)
        return None

    async def configure(self, config: DeviceConfig) -> None:
        """Apply a difference."""
        self._configure(config)

    def _configure(self, config: DeviceConfig) -> None:
        if self.refuses is not None:
            raise DeviceError(self.name, self.refuses, "refused")
        self.log.append(config)
        for change in config.peers:
            self._apply(change)

    async def read(self) -> DeviceState:
        """Return a snapshot, after ``read_s`` seconds."""
        if self.refuses is not None:
            raise DeviceError(self.name, self.refuses, "refused")
        self.reads += 1
        state = DeviceState(self.name, None, 0, {peer.key: peer for peer in self.peers.values()})
        await asyncio.sleep(self.read_s)
        return state

    async def look(self) -> Look:
        """Return the same for questions about single peers."""
        return StateLook(await self.read())

    async def close(self) -> None:
        """Refuse everything from now on."""
        self.refuses = errno.EBADF

    def _apply(self, change: PeerConfig) -> None:
        if change.remove:
            self.peers.pop(change.key, None)
            return
        known = self.peers.get(change.key)
        if known is None and change.update_only:
            return
        peer = known or PeerState(change.key, None, (), 0, None, 0, 0)
        if change.endpoint is not None:
            peer = replace(peer, endpoint=change.endpoint)
        if change.keepalive_s is not None:
            peer = replace(peer, keepalive_s=change.keepalive_s)
        if change.allowed_ips is not None:
            self._take_from_others(change)
            peer = replace(peer, allowed_ips=change.allowed_ips)
        self.peers[change.key] = peer

    def _take_from_others(self, change: PeerConfig) -> None:
        for key, other in self.peers.items():
            left = tuple(ip for ip in other.allowed_ips if ip not in (change.allowed_ips or ()))
            if key != change.key and left != other.allowed_ips:
                self.peers[key] = replace(other, allowed_ips=left)
