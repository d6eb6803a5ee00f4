"""Tests of addresses and prefixes, so that a wrong inventory fails before a host is touched."""

from __future__ import annotations

import ipaddress
from typing import Any


def ip_address(value: Any) -> bool:
    """Tell whether it is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return isinstance(value, str)


def ip_prefix(value: Any) -> bool:
    """Tell whether it is a prefix without host bits."""
    try:
        ipaddress.ip_network(value)
    except ValueError:
        return False
    return isinstance(value, str) and "/" in value


def inside(value: str, wider: list[str]) -> bool:
    """Tell whether a prefix lies in one of several."""
    prefix = ipaddress.ip_network(value)
    return any(
        other.version == prefix.version and prefix.subnet_of(other)
        for other in map(ipaddress.ip_network, wider)
    )


class TestModule:
    """What Ansible loads."""

    def tests(self) -> dict[str, Any]:
        """Name the tests."""
        return {"ip_address": ip_address, "ip_prefix": ip_prefix, "inside": inside}
