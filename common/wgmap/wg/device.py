"""One small interface to a WireGuard device, whatever stands behind it.

A field left at its default means "leave as it is". A configuration is always a difference that
is applied, never a flush: peers that are not named are not touched.
"""

import errno
import os
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

from wgmap.addresses import Endpoint, IPNetwork
from wgmap.errors import WgmapError
from wgmap.wg.keys import PrivateKey, PublicKey


class DeviceError(WgmapError):
    """A device refused a change or is gone; ``errno`` is kept."""

    def __init__(self, device: str, code: int, what: str) -> None:
        self.device = device
        self.errno = code
        name = errno.errorcode.get(code, str(code))
        super().__init__(f"{device}: {what}: {os.strerror(code)} ({name})")


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """A change to one peer of a device; None means unchanged."""

    key: PublicKey
    endpoint: Endpoint | None = None
    allowed_ips: tuple[IPNetwork, ...] | None = None  # replaces the whole set
    keepalive_s: int | None = None  # 0 switches it off; from 0 to n sends at once
    remove: bool = False
    update_only: bool = False  # do nothing when the peer does not exist


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """A change to a device; applied in order, peers one after another as listed.

    A PeerConfig with ``remove`` followed by one that adds the same key is the "kick": it drops
    the handshake state of that peer at once.
    """

    private_key: PrivateKey | None = None
    listen_port: int | None = None
    fwmark: int | None = None
    peers: tuple[PeerConfig, ...] = ()


@dataclass(frozen=True, slots=True)
class PeerState:
    """What a device knows of a peer."""

    key: PublicKey
    endpoint: Endpoint | None
    allowed_ips: tuple[IPNetwork, ...]
    keepalive_s: int
    last_handshake: float | None  # wall clock, seconds since 1970; None: never
    rx_bytes: int
    tx_bytes: int


@dataclass(frozen=True, slots=True)
class DeviceState:
    """What a device is: its key, port and peers."""

    name: str
    public_key: PublicKey | None
    listen_port: int
    peers: dict[PublicKey, PeerState]


class Look(Protocol):
    """What a device said of all its peers at one time, understood only where it is asked for.

    WireGuard tells of all peers or of none. Most of those who ask want to know of a few, and to
    make values of what is said of one peer takes longer than to find it.
    """

    def peer(self, key: PublicKey) -> PeerState | None:
        """Return what was said of a peer; None: there is none. Raises DeviceError (EPROTO)."""
        ...

    def handshake_s(self, key: PublicKey) -> int:
        """Return only when its last handshake was, in whole seconds since 1970; 0: never.

        For who asks of every peer. Raises DeviceError (EPROTO).
        """
        ...


class Device(Protocol):
    """A WireGuard interface that exists."""

    @property
    def name(self) -> str:
        """The interface's name."""
        ...

    async def configure(self, config: DeviceConfig) -> None:
        """Apply a difference as one request; raises DeviceError."""
        ...

    def begin(self, config: DeviceConfig) -> Awaitable[None] | None:
        """Apply a difference without a turn of the loop where that is possible.

        None: it is applied. Otherwise await what is returned, before anything else is asked for.
        Raises DeviceError, now or then. This is on the path of every first packet.
        """
        ...

    async def read(self) -> DeviceState:
        """Read the whole state; raises DeviceError. Costs time in proportion to the peers."""
        ...

    async def look(self) -> Look:
        """Read the whole state for questions about some peers; raises DeviceError.

        For us it costs a thirtieth of ``read``; for the device it is the same.
        """
        ...

    async def close(self) -> None:
        """Let go of the device; the interface and its tunnels stay."""
        ...


class Backend(Protocol):
    """A way to make WireGuard interfaces on this machine."""

    name: str

    async def open(self, interface: str) -> Device:
        """Adopt the interface if it is alive, else create it; raises DeviceError.

        What carries the interface (a wireguard-go process) outlives the caller.
        """
        ...

    async def remove(self, interface: str) -> None:
        """Remove the interface and what carries it; no error when there is none."""
        ...
