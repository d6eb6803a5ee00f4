"""The TUN device: what the kernel routes to no known peer comes out here.

It is persistent: its host EIDs and the overlay's routes outlive the agent, and so do the
tunnels of the applications that are bound to these addresses.
"""

import errno
import fcntl
import os
import struct
from typing import Self

from wgmap.errors import WgmapError
from wgmap.wg.userspace import exists
from wgmap_agent.runner.lost import InterfaceLostError

_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_PATH = "/dev/net/tun"
_MAX_PACKET = 65535


class TunError(WgmapError):
    """The TUN device cannot be had; the text says why."""


class Tun:
    """An open TUN device, non-blocking; one packet a read, no packet information."""

    def __init__(self, name: str, descriptor: int | None = None) -> None:
        """Adopt the device or create it, persistent; raises TunError.

        ``descriptor``: of a ``Tun`` of this name that was ``detach``-ed.
        """
        self.name = name
        self._fd = _open(name) if descriptor is None else descriptor

    def fileno(self) -> int:
        """Return the descriptor, readable when packets wait."""
        return self._fd

    def read(self, limit: int) -> list[bytes]:
        """Take at most ``limit`` packets that wait; empty when none does. InterfaceLostError."""
        packets: list[bytes] = []
        while len(packets) < limit:
            try:
                packets.append(os.read(self._fd, _MAX_PACKET))
            except BlockingIOError:
                break
            except OSError as error:
                if packets:
                    break  # the next read raises it again
                msg = f"{self.name}: {_reason(error)}"
                raise InterfaceLostError(msg) from error
        return packets

    def detach(self) -> int:
        """Hand the open descriptor over: packets wait in it until another one reads."""
        descriptor, self._fd = self._fd, -1
        return descriptor

    def close(self) -> None:
        """Let go of the device; it stays, with its addresses and routes."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def remove(name: str) -> None:
    """Remove a TUN device; no error when there is none. Raises TunError (in use, no TUN)."""
    if not exists(name):
        return
    fd = _attach(name)
    try:
        fcntl.ioctl(fd, _TUNSETPERSIST, 0)
    except OSError as error:
        raise _error(name, error) from error
    finally:
        os.close(fd)  # the device goes with its last descriptor


def _open(name: str) -> int:
    fd = _attach(name)
    try:
        fcntl.ioctl(fd, _TUNSETPERSIST, 1)
    except OSError as error:
        os.close(fd)
        raise _error(name, error) from error
    return fd


def _attach(name: str) -> int:
    try:
        fd = os.open(_PATH, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        msg = f"{_PATH}: {os.strerror(error.errno or 0)}"
        raise TunError(msg) from error
    try:
        request = struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI)
        fcntl.ioctl(fd, _TUNSETIFF, request)
    except OSError as error:
        os.close(fd)
        raise _error(name, error) from error
    return fd


_REASONS = {
    errno.EBUSY: "another process reads it",
    errno.EINVAL: "an interface of this name is there and is no TUN device",
    errno.EPERM: "this needs root or CAP_NET_ADMIN",
    errno.EBADFD: "the device was removed",
}


def _error(name: str, error: OSError) -> TunError:
    return TunError(f"{name}: {_reason(error)}")


def _reason(error: OSError) -> str:
    code = error.errno or 0
    return _REASONS.get(code, os.strerror(code))
