"""Addresses, prefixes and endpoints, and how they become bytes."""

import hashlib
import ipaddress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple, Self, TypeAlias

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPNetwork: TypeAlias = IPv4Network | IPv6Network

CONTROL_PREFIX_LENGTH = 64


class Endpoint(NamedTuple):
    """An underlay address and UDP port (an RLOC)."""

    address: IPAddress
    port: int

    def __str__(self) -> str:
        """Write it as WireGuard does: ``192.0.2.1:51820`` or ``[2001:db8::1]:51820``."""
        if self.address.version == 4:
            return f"{self.address}:{self.port}"
        return f"[{self.address}]:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str`` writes; raises ValueError (names are not resolved)."""
        host, colon, port = text.rpartition(":")
        if not colon or not port.isascii() or not port.isdigit():
            msg = f"{text!r} is not ADDRESS:PORT"
            raise ValueError(msg)
        bracketed = host.startswith("[") and host.endswith("]")
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
        if bracketed != (address.version == 6) or not 0 < int(port) < 65536:
            msg = f"{text!r} is not ADDRESS:PORT (IPv6 in brackets, port 1-65535)"
            raise ValueError(msg)
        return cls(address, int(port))


def parse_address(text: str) -> IPAddress:
    """Read an address; raises ValueError, also for one with a zone: it means nothing elsewhere."""
    address = ipaddress.ip_address(text)
    if address.version == 6 and address.scope_id is not None:
        msg = f"{text!r} has a zone"
        raise ValueError(msg)
    return address


def prefix_to_bytes(prefix: IPNetwork) -> bytes:
    """Key of a prefix: one byte of length, then the packed address (5 or 17 bytes in all)."""
    return bytes((prefix.prefixlen,)) + prefix.network_address.packed


def prefix_from_bytes(data: bytes) -> IPNetwork:
    """Invert prefix_to_bytes; raises ValueError."""
    if len(data) not in (5, 17):
        msg = f"a prefix key has 5 or 17 bytes, not {len(data)}"
        raise ValueError(msg)
    return ipaddress.ip_network((data[1:], data[0]))


def host_prefix(address: IPAddress) -> IPNetwork:
    """Return the /32 or /128 of one address."""
    if isinstance(address, IPv4Address):  # from integers: ip_network() writes and reads text
        return IPv4Network((int(address), 32))
    return IPv6Network((int(address), 128))


def control_address(prefix: IPv6Network, control_key: bytes) -> IPv6Address:
    """Derive a peer's address in the control tunnel from its public control key.

    The cluster's /64 followed by the first 8 bytes of SHA-256(key).
    """
    if prefix.prefixlen != CONTROL_PREFIX_LENGTH:
        msg = f"the control prefix must be a /64, not {prefix}"
        raise ValueError(msg)
    suffix = hashlib.sha256(control_key).digest()[:8]
    return IPv6Address(prefix.network_address.packed[:8] + suffix)
