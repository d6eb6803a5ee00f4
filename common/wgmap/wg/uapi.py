"""WireGuard's userspace API as text: requests written, answers read; no I/O.

The protocol is https://www.wireguard.com/xplatform/#configuration-protocol: lines of
``key=value``, a message ends with an empty line, an answer's last line is ``errno=N``.
"""

import errno
import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from wgmap.addresses import Endpoint, IPNetwork
from wgmap.errors import WgmapError
from wgmap.wg.device import (
    DeviceConfig,
    DeviceError,
    DeviceState,
    PeerConfig,
    PeerState,
)
from wgmap.wg.keys import KEY_BYTES, PrivateKey, PublicKey

END = b"\n\n"
GET = b"get=1\n\n"
MAX_ANSWER_BYTES = 64 << 20  # 10,000 peers with one prefix each take 3 MB
# Of a device that is read again and again. With fewer of them than it has peers nothing would ever
# be found: 100,000 agents at one server took twice as long to read. 80 MB when full.
CACHED_VALUES = 1 << 18
MAX_U64 = (1 << 64) - 1
NANOSECONDS = 1_000_000_000
KEY_DIGITS = 2 * KEY_BYTES
SPLIT_BYTES = 1 << 18  # at a time, so that others may have the interpreter in between: 0.3 ms
_PEER = b"\npublic_key="
_HANDSHAKE = b"\nlast_handshake_time_sec="


class UapiError(WgmapError):
    """Text that is not of this protocol, or a value that it cannot carry."""


def encode(config: DeviceConfig) -> bytes:
    """Write a configuration as one ``set`` request; raises UapiError.

    The receiver works line by line, so a peer that is removed and added again in one
    configuration really is (the "kick").
    """
    lines = ["set=1"]
    if config.private_key is not None:
        lines.append(f"private_key={config.private_key.reveal().hex()}")
    if config.listen_port is not None:
        lines.append(f"listen_port={config.listen_port}")
    if config.fwmark is not None:
        lines.append(f"fwmark={config.fwmark}")
    for peer in config.peers:
        lines.extend(_peer_lines(peer))
    return ("\n".join(lines) + "\n\n").encode("ascii")


def _peer_lines(peer: PeerConfig) -> Iterator[str]:
    yield f"public_key={peer.key.hex()}"
    if peer.remove:
        yield "remove=true"
        return
    if peer.update_only:
        yield "update_only=true"
    if peer.endpoint is not None:
        yield f"endpoint={_endpoint_text(peer.endpoint)}"
    if peer.keepalive_s is not None:
        yield f"persistent_keepalive_interval={peer.keepalive_s}"
    if peer.allowed_ips is not None:
        yield "replace_allowed_ips=true"
        yield from (f"allowed_ip={prefix}" for prefix in peer.allowed_ips)


def _endpoint_text(endpoint: Endpoint) -> str:
    # Only the zone of an IPv6 address is free text: a line break in it would be a command.
    text = str(endpoint)
    if not text.isascii() or not text.isprintable():
        msg = f"{text!r} is no endpoint"
        raise UapiError(msg)
    return text


def parse_errno(answer: bytes) -> int:
    """Return the errno (positive, 0: done) of an answer; raises UapiError."""
    _, code = _split(answer)
    return code


def parse_state(name: str, answer: bytes) -> DeviceState:
    """Read the answer to GET; raises UapiError, or DeviceError with the errno that it carries.

    Keys that are not known are passed over: later versions of the protocol may have more.
    """
    lines, code = _split(answer)
    if code:
        raise DeviceError(name, code, "cannot read the device")
    reading = _Reading()
    for line in lines:
        key, equals, value = line.partition("=")
        if not equals:
            msg = f"{line[:40]!r} is not KEY=VALUE"
            raise UapiError(msg)
        _take(reading, key, value)
    peers = {peer.key: peer.freeze() for peer in reading.peers.values()}
    return DeviceState(name, reading.public_key, reading.listen_port, peers)


def parse_look(name: str, answer: bytes) -> "UapiLook":
    """Find the peers in the answer to GET, 0.3 us each; what is said of one is read when asked for.

    Raises UapiError, or DeviceError with the errno that the answer carries.
    """
    _, code = _split(answer[answer.rfind(b"errno=") :])
    if code:
        raise DeviceError(name, code, "cannot read the device")
    return UapiLook(name, {said[:KEY_DIGITS]: said for said in _said(answer)})


def _said(answer: bytes) -> Iterator[bytes]:
    """Yield what is said of each peer, from its key on (first something of the device itself)."""
    at, end = 0, 0
    while end >= 0:
        end = answer.find(_PEER, at + SPLIT_BYTES)
        part = answer[at:] if end < 0 else answer[at:end]
        yield from part.removeprefix(_PEER.lstrip()).split(_PEER)
        at = end + 1


class UapiLook:
    """See ``wgmap.wg.device.Look``."""

    def __init__(self, name: str, said: dict[bytes, bytes]) -> None:
        """Take what was said of each peer, by the digits of its key."""
        self._name = name
        self._said = said

    def peer(self, key: PublicKey) -> PeerState | None:
        """See Look."""
        said = self._said.get(key.hex().encode())
        if said is None:
            return None
        reading = _Reading()
        try:
            for line in f"public_key={said.decode('ascii')}".split("\n"):
                name, _, value = line.partition("=")
                _take(reading, name, value)
        except (UapiError, UnicodeDecodeError) as error:
            raise DeviceError(self._name, errno.EPROTO, str(error)) from error
        return reading.peers[key].freeze()

    def handshake_s(self, key: PublicKey) -> int:
        """See Look."""
        _, found, rest = self._said.get(key.hex().encode(), b"").partition(_HANDSHAKE)
        if not found:
            return 0
        try:
            return _number(rest.partition(b"\n")[0].decode("ascii", "replace"), MAX_U64)
        except UapiError as error:
            raise DeviceError(self._name, errno.EPROTO, str(error)) from error


def _split(answer: bytes) -> tuple[list[str], int]:
    if len(answer) > MAX_ANSWER_BYTES:
        msg = f"an answer of {len(answer)} bytes"
        raise UapiError(msg)
    try:
        lines = answer.decode("ascii").rstrip("\n").split("\n")
    except UnicodeDecodeError as error:
        msg = "an answer that is not text"
        raise UapiError(msg) from error
    key, _, value = lines.pop().partition("=")
    if key != "errno":
        msg = "an answer without errno"
        raise UapiError(msg)
    # wireguard-go answers negative numbers, others positive ones.
    return lines, _number(value.removeprefix("-"), 4095)


@dataclass(slots=True)
class _PeerReading:
    key: PublicKey
    endpoint: Endpoint | None = None
    allowed_ips: list[IPNetwork] = field(default_factory=list)
    keepalive_s: int = 0
    handshake_s: int = 0
    handshake_ns: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0

    def freeze(self) -> PeerState:
        handshake = self.handshake_s + self.handshake_ns / NANOSECONDS
        return PeerState(
            key=self.key,
            endpoint=self.endpoint,
            allowed_ips=tuple(self.allowed_ips),
            keepalive_s=self.keepalive_s,
            last_handshake=handshake or None,
            rx_bytes=self.rx_bytes,
            tx_bytes=self.tx_bytes,
        )


@dataclass(slots=True)
class _Reading:
    public_key: PublicKey | None = None
    listen_port: int = 0
    peers: dict[PublicKey, _PeerReading] = field(default_factory=dict)
    current: _PeerReading | None = None


def _take(reading: _Reading, key: str, value: str) -> None:
    if key == "public_key":
        _begin_peer(reading, PublicKey(_key_bytes(value)))
    elif (peer_reader := _PEER_READERS.get(key)) is not None:
        if reading.current is None:
            msg = f"{key} before any peer"
            raise UapiError(msg)
        peer_reader(reading.current, value)
    elif key == "private_key":
        data = _key_bytes(value)
        reading.public_key = PrivateKey(data).public if any(data) else None
    elif key == "listen_port":
        reading.listen_port = _number(value, 65535)


# A device is read again and again, and hardly anything in it changes meanwhile.
_endpoint = lru_cache(CACHED_VALUES)(Endpoint.parse)


@lru_cache(CACHED_VALUES)
def _network(text: str) -> IPNetwork:
    return ipaddress.ip_network(text)


def _begin_peer(reading: _Reading, key: PublicKey) -> None:
    if key in reading.peers:
        msg = f"peer {key} twice"
        raise UapiError(msg)
    reading.current = reading.peers[key] = _PeerReading(key)


def _read_endpoint(peer: _PeerReading, value: str) -> None:
    # UDP packets may come from port 0. Nothing can be sent there, and one peer that does so
    # must not make the state of all others unreadable.
    if value.endswith(":0"):
        return
    try:
        peer.endpoint = _endpoint(value)
    except ValueError as error:
        raise UapiError(str(error)) from error


def _read_allowed_ip(peer: _PeerReading, value: str) -> None:
    try:
        peer.allowed_ips.append(_network(value))
    except ValueError as error:
        raise UapiError(str(error)) from error


def _number_reader(name: str, limit: int) -> Callable[[_PeerReading, str], None]:
    def read(peer: _PeerReading, value: str) -> None:
        setattr(peer, name, _number(value, limit))

    return read


_PEER_READERS: dict[str, Callable[[_PeerReading, str], None]] = {
    "endpoint": _read_endpoint,
    "allowed_ip": _read_allowed_ip,
    "persistent_keepalive_interval": _number_reader("keepalive_s", 65535),
    "last_handshake_time_sec": _number_reader("handshake_s", MAX_U64),
    "last_handshake_time_nsec": _number_reader("handshake_ns", NANOSECONDS - 1),
    "rx_bytes": _number_reader("rx_bytes", MAX_U64),
    "tx_bytes": _number_reader("tx_bytes", MAX_U64),
}


def _number(text: str, limit: int) -> int:
    if not text.isdigit() or len(text) > 20 or int(text) > limit:
        msg = f"{text[:40]!r} is not a number from 0 to {limit}"
        raise UapiError(msg)
    return int(text)


def _key_bytes(text: str) -> bytes:
    try:
        data = bytes.fromhex(text)
    except ValueError as error:
        msg = "a key that is not hexadecimal"
        raise UapiError(msg) from error
    if len(data) != KEY_BYTES:
        msg = f"a key of {len(data)} bytes"
        raise UapiError(msg)
    return data
