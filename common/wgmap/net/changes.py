"""What the kernel tells about changes of links, addresses and routes.

A socket of its own, read directly: the kernel's receive buffer is the only queue, and when it
overflows (ENOBUFS) the listener is told so and reads the state anew.
"""

import asyncio
import errno
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import Enum
from typing import Self

from pyroute2.netlink import rtnl

from wgmap.net.errors import NetworkError

RECEIVE_BYTES = 64 * 1024
GROUPS = (
    rtnl.RTMGRP_LINK
    | rtnl.RTMGRP_IPV4_IFADDR
    | rtnl.RTMGRP_IPV6_IFADDR
    | rtnl.RTMGRP_IPV4_ROUTE
    | rtnl.RTMGRP_IPV6_ROUTE
)
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_INDEXED = struct.Struct("=4xI")  # ifaddrmsg; ifinfomsg begins with the same eight bytes
_ROUTE = struct.Struct("=5xB2x")  # rtmsg up to rtm_type: its protocol


class ChangeKind(Enum):
    """What changed."""

    LINK = "link"
    ADDRESS = "address"
    ROUTE = "route"
    LOST = "lost"  # changes were lost: read everything anew


@dataclass(frozen=True, slots=True)
class Change:
    """A change; ``index``: of the interface (0 for routes)."""

    kind: ChangeKind
    added: bool = True  # or changed; False: removed
    index: int = 0


_KINDS = {
    rtnl.RTM_NEWLINK: (ChangeKind.LINK, True),
    rtnl.RTM_DELLINK: (ChangeKind.LINK, False),
    rtnl.RTM_NEWADDR: (ChangeKind.ADDRESS, True),
    rtnl.RTM_DELADDR: (ChangeKind.ADDRESS, False),
    rtnl.RTM_NEWROUTE: (ChangeKind.ROUTE, True),
    rtnl.RTM_DELROUTE: (ChangeKind.ROUTE, False),
}


def parse_changes(data: bytes, own_protocol: int) -> list[Change]:
    """Read the messages of one datagram; what is not understood is passed over.

    Routes of ``own_protocol`` are left out: our own changes are no news.
    """
    changes = []
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            break
        change = _parse_one(kind, data[offset + _HEADER.size : offset + length], own_protocol)
        if change is not None:
            changes.append(change)
        offset += (length + 3) & ~3
    return changes


def _parse_one(number: int, body: bytes, own_protocol: int) -> Change | None:
    known = _KINDS.get(number)
    if known is None or len(body) < 8:
        return None
    kind, added = known
    if kind is ChangeKind.ROUTE:
        return None if _ROUTE.unpack_from(body)[0] == own_protocol else Change(kind, added)
    return Change(kind, added, _INDEXED.unpack_from(body)[0])


class ChangeListener:
    """Listens from the moment it is made: list the state after that, and nothing is missed."""

    def __init__(self, own_protocol: int, groups: int = GROUPS) -> None:
        """Open the socket in the network namespace of the calling thread; NetworkError."""
        self._own_protocol = own_protocol
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        try:
            self._socket.bind((0, groups))
        except OSError as error:
            self._socket.close()
            raise NetworkError("listening to changes", error.errno or errno.EIO) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    async def __aiter__(self) -> AsyncIterator[Change]:
        """Yield changes for ever; raises NetworkError."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                data = await loop.sock_recv(self._socket, RECEIVE_BYTES)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise NetworkError("listening", error.errno or errno.EIO) from error
                yield Change(ChangeKind.LOST)
                continue
            for change in parse_changes(data, self._own_protocol):
                yield change
