"""Many agents on loopback behind one socket: each is an address of 127.0.0.0/8.

All of 127.0.0.0/8 is this machine's: the source of a datagram is chosen as it is sent
(IP_PKTINFO), and what comes back says to whom. So answers to all are in the order in which they
came, and a hundred thousand agents cost no descriptors.
"""

import json
import select
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from wgmap.clock import now

_PKTINFO = struct.Struct("@i4s4s")  # in_pktinfo: interface, source to use, address in the header
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
IP_PKTINFO = 8  # linux/in.h
BUFFER = 32 << 20


def address(number: int) -> str:
    """Return the address of an agent, from 0 to sixteen million."""
    return socket.inet_ntoa(struct.pack("!I", 0x7F01_0000 + number))


class Sources:
    """Sends as any of them, and hears what is sent to all."""

    def __init__(self, server: tuple[str, int]) -> None:
        self._server = server
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self._socket.bind(("0.0.0.0", 0))  # answers come to loopback addresses

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, source: str, data: bytes) -> None:
        """Send as an agent; where the kernel takes no more it is lost, as anywhere."""
        info = _PKTINFO.pack(0, socket.inet_aton(source), bytes(4))
        with_source = [(socket.IPPROTO_IP, IP_PKTINFO, info)]
        self._socket.sendmsg([data], with_source, 0, self._server)

    def waiting(self) -> Iterator[tuple[str, bytes]]:
        """Yield what has come, with the agent that it is for."""
        while True:
            try:
                data, extra, _, _ = self._socket.recvmsg(65535, 64)
            except BlockingIOError:
                return
            (_, _, info), *_ = extra
            yield socket.inet_ntoa(_PKTINFO.unpack(info)[2]), data

    def heard(self, quiet_s: float) -> Iterator[tuple[str, bytes]]:
        """Yield what comes until nothing has come for so long."""
        end = now() + quiet_s
        while (left := end - now()) > 0:
            if not select.select([self], [], [], left)[0]:
                return
            for one in self.waiting():
                end = now() + quiet_s
                yield one


def write_peers(path: Path, count: int) -> Path:
    """Write a file for ``wgmap peer import``: agent n has the prefix of ``prefix(n)``."""
    with path.open("w") as file:
        for number in range(count):
            peer = {"name": f"p{number}", "prefixes": [prefix(number)]}
            file.write(json.dumps({**peer, "control_address": address(number)}) + "\n")
    return path


def prefix(number: int) -> str:
    """Return the prefix of an agent."""
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}/32"
