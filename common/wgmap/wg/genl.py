"""The kernel's WireGuard as bytes (generic netlink, linux/wireguard.h); no I/O.

The library's encoder takes 350 us a peer and its decoder more; a server has ten thousand. Written
out, both take a few microseconds.
"""

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv6Address
from typing import TypeAlias

from pyroute2.netlink import (
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
)

from wgmap.addresses import Endpoint, IPNetwork
from wgmap.errors import WgmapError
from wgmap.wg.device import DeviceConfig, DeviceError, DeviceState, PeerConfig, PeerState
from wgmap.wg.keys import KEY_BYTES, PublicKey

FAMILY_NAME = b"wireguard\0"
# The list of peers is one attribute, whose length has 16 bits.
MAX_PEERS_BYTES = 60_000
MAX_PEERS = 500
CACHED_VALUES = 1 << 15
MAX_PREFIXES = 500  # of one peer in one message
_CONTROLLER = 16  # GENL_ID_CTRL
_GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 3, 1, 2
_GET_DEVICE, _SET_DEVICE = 0, 1
_VERSION = 1
_NESTED = 0x8000  # NLA_F_NESTED
_TYPE_MASK = 0x3FFF
_REMOVE_ME, _REPLACE_ALLOWEDIPS, _UPDATE_ONLY = 1, 2, 4  # WGPEER_F_...

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_GENERIC = struct.Struct("=BBxx")  # genlmsghdr: command, version
_ATTRIBUTE = struct.Struct("=HH")
_U8, _U16, _U32, _U64 = (struct.Struct("=" + code) for code in "BHIQ")
_ERROR = struct.Struct("=i")
_TIME = struct.Struct("=qq")
_IPV4 = struct.Struct("=H2s4s8x")  # sockaddr_in; the port is in network order
_IPV6 = struct.Struct("=H2sI16sI")  # sockaddr_in6
_NANOSECONDS = 1_000_000_000
_Attributes: TypeAlias = dict[int, bytes]


class Device:
    """WGDEVICE_A_..."""

    IFNAME, PRIVATE_KEY, PUBLIC_KEY, LISTEN_PORT, FWMARK, PEERS = 2, 3, 4, 6, 7, 8


class Peer:
    """WGPEER_A_..."""

    PUBLIC_KEY, FLAGS, ENDPOINT, KEEPALIVE, LAST_HANDSHAKE = 1, 3, 4, 5, 6
    RX_BYTES, TX_BYTES, ALLOWEDIPS = 7, 8, 9


class AllowedIp:
    """WGALLOWEDIP_A_..."""

    FAMILY, ADDRESS, MASK = 1, 2, 3


class GenlError(WgmapError):
    """Bytes that are not such a message, or a value that it cannot carry."""


@dataclass(frozen=True, slots=True)
class Message:
    """One netlink message; ``code``: how the request ended, as errno (0: done), None: not yet."""

    sequence: int
    attributes: _Attributes = field(default_factory=dict)
    code: int | None = None
    interrupted: bool = False  # what was read changed meanwhile: read it again


def get_family() -> bytes:
    """Ask for the number of the WireGuard family; the kernel loads its module if it has one."""
    body = _GENERIC.pack(_GET_FAMILY, 1) + _attribute(_FAMILY_NAME, FAMILY_NAME)
    return _request(_CONTROLLER, NLM_F_REQUEST | NLM_F_ACK, body)


def family_of(message: Message) -> int | None:
    """Return the number in an answer to ``get_family``."""
    data = message.attributes.get(_FAMILY_ID)
    return None if data is None else _number(_U16, data)


def get_device(family: int, interface: str) -> bytes:
    """Ask for all of a device; the answer has several messages, the last one with a code."""
    body = _GENERIC.pack(_GET_DEVICE, _VERSION) + _name(interface)
    return _request(family, NLM_F_REQUEST | NLM_F_DUMP, body)


def set_device(family: int, interface: str, config: DeviceConfig) -> list[bytes]:
    """Write a configuration as messages, each to be acknowledged before the next is sent.

    Peers keep their order, so that removing and adding one works; at most MAX_PEERS a message.
    """
    bodies = []
    head = _GENERIC.pack(_SET_DEVICE, _VERSION) + _name(interface)
    settings = _device_attributes(config)
    for peers in _grouped(config.peers):
        bodies.append(head + settings + _attribute(Device.PEERS | _NESTED, peers))
        settings = b""
    if not bodies:
        bodies.append(head + settings)
    return [_request(family, NLM_F_REQUEST | NLM_F_ACK, body) for body in bodies]


def numbered(request: bytes, sequence: int) -> bytes:
    """Give a request the number that its answers will carry."""
    return request[:8] + _U32.pack(sequence) + request[12:]


def parse(data: bytes) -> Iterator[Message]:
    """Yield the messages of a datagram; raises GenlError."""
    offset = 0
    while offset < len(data):
        if offset + _HEADER.size > len(data):
            raise GenlError("a message that is cut off")
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size or offset + length > len(data):
            raise GenlError("a message of a wrong length")
        body = data[offset + _HEADER.size : offset + length]
        yield _message(kind, flags, sequence, body)
        offset += (length + 3) & ~3


def read_state(name: str, messages: list[Message]) -> DeviceState:
    """Put the answer to ``get_device`` together; raises GenlError.

    A peer whose prefixes do not fit one message goes on in the next.
    """
    public_key, listen_port = None, 0
    peers: dict[PublicKey, PeerState] = {}
    for message in messages:
        attributes = message.attributes
        if (key := attributes.get(Device.PUBLIC_KEY)) is not None:
            public_key = _key(key)
        if (port := attributes.get(Device.LISTEN_PORT)) is not None:
            listen_port = _number(_U16, port)
        for data in _elements(attributes.get(Device.PEERS, b"")):
            peer = _read_peer(_table(data))
            peers[peer.key] = _joined(peers.get(peer.key), peer)
    return DeviceState(name, public_key, listen_port, peers)


def read_look(name: str, messages: list[Message]) -> "GenlLook":
    """Find the peers in the answer to ``get_device``; raises GenlError."""
    said: dict[bytes, list[bytes]] = {}
    for message in messages:
        for data in _elements(message.attributes.get(Device.PEERS, b"")):
            said.setdefault(_first_key(data), []).append(data)
    return GenlLook(name, said)


class GenlLook:
    """See ``wgmap.wg.device.Look``."""

    def __init__(self, name: str, said: dict[bytes, list[bytes]]) -> None:
        """Take what was said of each peer, which may be in several messages."""
        self._name = name
        self._said = said

    def peer(self, key: PublicKey) -> PeerState | None:
        """See Look."""
        found: PeerState | None = None
        try:
            for data in self._said.get(bytes(key), ()):
                found = _joined(found, _read_peer(_table(data)))
        except GenlError as error:
            raise DeviceError(self._name, errno.EPROTO, str(error)) from error
        return found

    def handshake_s(self, key: PublicKey) -> int:
        """See Look."""
        peer = self.peer(key)
        return 0 if peer is None else int(peer.last_handshake or 0)


def _first_key(data: bytes) -> bytes:
    """Return the key of a peer, its first attribute (as the kernel writes it)."""
    kind, key = next(_walk(data), (0, b""))
    return key if kind == Peer.PUBLIC_KEY else _table(data).get(Peer.PUBLIC_KEY, b"")


def _device_attributes(config: DeviceConfig) -> bytes:
    parts = []
    if config.private_key is not None:
        parts.append(_attribute(Device.PRIVATE_KEY, config.private_key.reveal()))
    if config.listen_port is not None:
        parts.append(_attribute(Device.LISTEN_PORT, _U16.pack(config.listen_port)))
    if config.fwmark is not None:
        parts.append(_attribute(Device.FWMARK, _U32.pack(config.fwmark)))
    return b"".join(parts)


def _grouped(peers: tuple[PeerConfig, ...]) -> Iterator[bytes]:
    group: list[bytes] = []
    size = 0
    for data in (data for peer in peers for data in _peer(peer)):
        if group and (len(group) == MAX_PEERS or size + len(data) > MAX_PEERS_BYTES):
            yield b"".join(group)
            group, size = [], 0
        group.append(data)
        size += len(data)
    if group:
        yield b"".join(group)


def _peer(peer: PeerConfig) -> Iterator[bytes]:
    """Write a peer; where its prefixes are too many for one, as several elements of the list."""
    key = _attribute(Peer.PUBLIC_KEY, peer.key)
    if peer.remove:
        yield _attribute(_NESTED, key + _attribute(Peer.FLAGS, _U32.pack(_REMOVE_ME)))
        return
    prefixes = peer.allowed_ips or ()
    update = _UPDATE_ONLY if peer.update_only else 0
    flags = update | (_REPLACE_ALLOWEDIPS if peer.allowed_ips is not None else 0)
    head = key + _attribute(Peer.FLAGS, _U32.pack(flags)) + _peer_settings(peer)
    yield _attribute(_NESTED, head + _prefixes(prefixes[:MAX_PREFIXES]))
    for start in range(MAX_PREFIXES, len(prefixes), MAX_PREFIXES):
        more = key + _attribute(Peer.FLAGS, _U32.pack(update))
        yield _attribute(_NESTED, more + _prefixes(prefixes[start : start + MAX_PREFIXES]))


def _peer_settings(peer: PeerConfig) -> bytes:
    data = b""
    if peer.endpoint is not None:
        data += _attribute(Peer.ENDPOINT, _endpoint(peer.endpoint))
    if peer.keepalive_s is not None:
        data += _attribute(Peer.KEEPALIVE, _U16.pack(peer.keepalive_s))
    return data


def _prefixes(prefixes: tuple[IPNetwork, ...]) -> bytes:
    if not prefixes:
        return b""
    return _attribute(Peer.ALLOWEDIPS | _NESTED, b"".join(map(_prefix, prefixes)))


def _prefix(prefix: IPNetwork) -> bytes:
    family = socket.AF_INET if prefix.version == 4 else socket.AF_INET6
    return _attribute(
        _NESTED,
        _attribute(AllowedIp.FAMILY, _U16.pack(family))
        + _attribute(AllowedIp.ADDRESS, prefix.network_address.packed)
        + _attribute(AllowedIp.MASK, _U8.pack(prefix.prefixlen)),
    )


def _endpoint(endpoint: Endpoint) -> bytes:
    address, port = endpoint.address, endpoint.port.to_bytes(2, "big")
    if not isinstance(address, IPv6Address):
        return _IPV4.pack(socket.AF_INET, port, address.packed)
    zone = address.scope_id or "0"
    if not zone.isascii() or not zone.isdigit():
        raise GenlError(f"{endpoint}: the zone must be the number of an interface")
    return _IPV6.pack(socket.AF_INET6, port, 0, address.packed, int(zone))


def _request(kind: int, flags: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 0, 0) + body


def _name(interface: str) -> bytes:
    return _attribute(Device.IFNAME, interface.encode() + b"\0")


def _attribute(kind: int, data: bytes) -> bytes:
    size = _ATTRIBUTE.size + len(data)
    return _ATTRIBUTE.pack(size, kind) + data + bytes(-size % 4)


def _message(kind: int, flags: int, sequence: int, body: bytes) -> Message:
    if kind == NLMSG_ERROR:
        return Message(sequence, code=-_number(_ERROR, body[: _ERROR.size]))
    interrupted = bool(flags & NLM_F_DUMP_INTR)
    if kind == NLMSG_DONE:
        code = -_number(_ERROR, body[: _ERROR.size]) if body else 0
        return Message(sequence, code=code, interrupted=interrupted)
    return Message(sequence, _table(body[_GENERIC.size :]), interrupted=interrupted)


def _walk(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size or offset + length > len(data):
            raise GenlError("an attribute of a wrong length")
        yield kind & _TYPE_MASK, data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def _table(data: bytes) -> _Attributes:
    return dict(_walk(data))


def _elements(data: bytes) -> Iterator[bytes]:
    return (value for _, value in _walk(data))


def _read_peer(attributes: _Attributes) -> PeerState:
    handshake = attributes.get(Peer.LAST_HANDSHAKE)
    return PeerState(
        key=_key(attributes.get(Peer.PUBLIC_KEY, b"")),
        endpoint=_read_endpoint(attributes.get(Peer.ENDPOINT)),
        allowed_ips=tuple(
            _read_prefix(_table(data)) for data in _elements(attributes.get(Peer.ALLOWEDIPS, b""))
        ),
        keepalive_s=_number(_U16, attributes.get(Peer.KEEPALIVE, bytes(2))),
        last_handshake=None if handshake is None else _read_time(handshake),
        rx_bytes=_number(_U64, attributes.get(Peer.RX_BYTES, bytes(8))),
        tx_bytes=_number(_U64, attributes.get(Peer.TX_BYTES, bytes(8))),
    )


def _joined(before: PeerState | None, more: PeerState) -> PeerState:
    if before is None:
        return more
    return PeerState(
        before.key,
        before.endpoint,
        before.allowed_ips + more.allowed_ips,
        before.keepalive_s,
        before.last_handshake,
        before.rx_bytes,
        before.tx_bytes,
    )


# A device is read again and again, and hardly anything in it changes meanwhile.
@lru_cache(CACHED_VALUES)
def _read_endpoint(data: bytes | None) -> Endpoint | None:
    if data is None:
        return None
    try:
        if len(data) == _IPV4.size:
            _, port, packed = _IPV4.unpack(data)
            return _endpoint_at(ipaddress.IPv4Address(packed), port)
        _, port, _, packed, zone = _IPV6.unpack(data)
    except struct.error as error:
        raise GenlError("an endpoint of a wrong length") from error
    suffix = f"%{zone}" if zone else ""
    return _endpoint_at(ipaddress.IPv6Address(f"{ipaddress.IPv6Address(packed)}{suffix}"), port)


def _endpoint_at(address: ipaddress.IPv4Address | IPv6Address, port: bytes) -> Endpoint | None:
    # Port 0: a peer may send from it, but nothing can be sent there.
    number = int.from_bytes(port, "big")
    return Endpoint(address, number) if number else None


def _read_prefix(attributes: _Attributes) -> IPNetwork:
    address = attributes.get(AllowedIp.ADDRESS, b"")
    try:
        mask = _number(_U8, attributes.get(AllowedIp.MASK, b""))
        return _network(address, mask)
    except ValueError as error:
        raise GenlError(f"no prefix: {error}") from error


@lru_cache(CACHED_VALUES)
def _network(address: bytes, mask: int) -> IPNetwork:
    return ipaddress.ip_network((address, mask))


def _read_time(data: bytes) -> float | None:
    if len(data) != _TIME.size:
        raise GenlError("a time of a wrong length")
    seconds, nanoseconds = _TIME.unpack(data)
    moment: float = seconds + nanoseconds / _NANOSECONDS
    return moment or None


def _key(data: bytes) -> PublicKey:
    if len(data) != KEY_BYTES:
        raise GenlError(f"a key of {len(data)} bytes")
    return PublicKey(data)


def _number(form: struct.Struct, data: bytes) -> int:
    if len(data) != form.size:
        raise GenlError(f"a number of {len(data)} bytes")
    value: int = form.unpack(data)[0]
    return value
