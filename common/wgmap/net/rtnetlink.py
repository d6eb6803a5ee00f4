"""Route changes as bytes (rtnetlink(7)); no I/O.

The library's encoder takes 250 us a route on the path of every first packet; this takes a
fiftieth. Everything that is not on that path goes through the library.
"""

import socket
import struct
from collections.abc import Iterator

from pyroute2.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    NLMSG_ERROR,
)
from pyroute2.netlink.rtnl import RTM_DELROUTE, RTM_NEWROUTE

from wgmap.net.plan import Route

SCOPE_UNIVERSE, SCOPE_LINK = 0, 253
IPV6_DEFAULT_METRIC = 1024
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ROUTE = struct.Struct("=8BI")  # rtmsg: family, lengths of dst and src, tos, table, protocol, ...
_ATTRIBUTE = struct.Struct("=HH")  # rtattr: length, type
_NUMBER = struct.Struct("=HHI")
_ERROR = struct.Struct("=i")
_RTN_UNICAST = 1
_RTA_DST, _RTA_OIF, _RTA_PRIORITY, _RTA_PREFSRC, _RTA_TABLE = 1, 4, 6, 7, 15
_REPLACE = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE
_DELETE = NLM_F_REQUEST | NLM_F_ACK


def replace_route(route: Route, index: int, protocol: int, sequence: int) -> bytes:
    """Write the request that makes or replaces a route over the interface ``index``."""
    return _request(RTM_NEWROUTE, _REPLACE, sequence, _body(route, index, protocol))


def delete_route(route: Route, index: int, protocol: int, sequence: int) -> bytes:
    """Write the request that deletes a route, if it is ``protocol``'s and over ``index``."""
    return _request(RTM_DELROUTE, _DELETE, sequence, _body(route, index, protocol))


def parse_acknowledgements(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield (sequence, errno; 0: done) of a datagram; what is no acknowledgement is passed over."""
    offset = 0
    while offset + _HEADER.size + _ERROR.size <= len(data):
        length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        if kind == NLMSG_ERROR:
            yield sequence, -_ERROR.unpack_from(data, offset + _HEADER.size)[0]
        offset += (length + 3) & ~3


def _request(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def _body(route: Route, index: int, protocol: int) -> bytes:
    ipv6 = route.prefix.version == 6
    family, scope = (socket.AF_INET6, SCOPE_UNIVERSE) if ipv6 else (socket.AF_INET, SCOPE_LINK)
    parts = [
        _ROUTE.pack(family, route.prefix.prefixlen, 0, 0, 0, protocol, scope, _RTN_UNICAST, 0),
        _bytes_attribute(_RTA_DST, route.prefix.network_address.packed),
        _NUMBER.pack(8, _RTA_OIF, index),
        _NUMBER.pack(8, _RTA_TABLE, route.table),
    ]
    # Told always for IPv6: a deletion without it takes the first route of whatever metric.
    if metric := route.metric or (IPV6_DEFAULT_METRIC if ipv6 else 0):
        parts.append(_NUMBER.pack(8, _RTA_PRIORITY, metric))
    if route.source is not None:
        parts.append(_bytes_attribute(_RTA_PREFSRC, route.source.packed))
    return b"".join(parts)


def _bytes_attribute(kind: int, data: bytes) -> bytes:
    # Addresses have 4 or 16 bytes, so no padding is needed.
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(data), kind) + data
