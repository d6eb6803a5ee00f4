"""Interfaces that vanish while the agent runs: somebody removed them, or their carrier died."""

import errno
import socket
from collections.abc import Callable, Iterable

from wgmap.errors import WgmapError
from wgmap.wg.device import DeviceError


class InterfaceLostError(WgmapError):
    """An interface is gone or is another one; everything on it has to be made anew."""


class Presence:
    """Remembers which interfaces there were, by their indices."""

    def __init__(self, names: Callable[[], Iterable[str]]) -> None:
        """Look at interfaces that exist, and are others now and then.

        Raises InterfaceLostError where one does not exist.
        """
        self._names = names
        self._indices: dict[str, int] = {}
        self.check()

    def check(self) -> None:
        """Raise InterfaceLostError where one is not what it was."""
        now = {name: _index(name) for name in self._names()}
        before, self._indices = self._indices, now
        for name, index in now.items():
            if index == 0 or before.get(name, index) != index:
                msg = f"{name} is gone"
                raise InterfaceLostError(msg)


def is_lost(error: WgmapError) -> bool:
    """Tell whether an error says that a device is gone for good."""
    return isinstance(error, DeviceError) and error.errno == errno.ENODEV


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0
