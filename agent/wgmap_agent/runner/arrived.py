"""Tells whose packets come in over an interface, at once: a reading of the device tells it later.

A packet socket with a small buffer. Where much comes in the kernel drops what does not fit, so
that this costs little; the readings, which are made all the same, find what was missed.
"""

import asyncio
import socket
from typing import Self

from wgmap.addresses import IPAddress
from wgmap.net.errors import NetworkError
from wgmap_agent.runner import icmp

BUFFER = 1 << 14  # bytes: some ten packets
MOST = 32  # packets a look
_HEADER = 40
_ETH_P_ALL = 3
_SOL_PACKET, _PACKET_IGNORE_OUTGOING = 263, 23


class Arrived:
    """The packets that come in over one interface, while the block runs."""

    def __init__(self, interface: str) -> None:
        """Open it; needs CAP_NET_RAW. Raises NetworkError."""
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
            self._socket.bind((interface, _ETH_P_ALL))
        except OSError as error:
            what = f"listen on {interface}"
            raise NetworkError(what, error.errno or 0) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    async def wait(self, timeout_s: float) -> set[IPAddress]:
        """Return where packets came from, as soon as some have; empty: none within this time."""
        if found := self._take():
            return found
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._socket, readable.set)
        try:
            async with asyncio.timeout(timeout_s):
                await readable.wait()
        except TimeoutError:
            return set()
        finally:
            loop.remove_reader(self._socket)
        return self._take()

    def _take(self) -> set[IPAddress]:
        found: set[IPAddress] = set()
        for _ in range(MOST):
            try:
                about = icmp.header(self._socket.recv(_HEADER))
            except OSError:  # nothing left, or the interface went down
                break
            if about is not None:
                found.add(about.source)
        return found
