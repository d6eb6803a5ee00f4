"""Filters that derive an address from a key, as the servers and agents do."""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
from typing import Any

DOCUMENTATION = """
name: derived_address
short_description: Derive an IPv6 address from a WireGuard public key
description:
  - The first 64 bits are those of the prefix, the others the first 8 bytes of the SHA-256 of it.
  - So it belongs to the key, and does not change when hosts join or leave the inventory.
positional: prefix
options:
  _input:
    description: The public key in base64.
    type: str
    required: true
  prefix:
    description: An IPv6 prefix of 64 bits.
    type: str
    required: true
"""

EXAMPLES = """
address: "{{ key | wgmap.rollout.derived_address('fd77:676d:6170::/64') }}"
"""

RETURN = """
_value:
  description: The address.
  type: str
"""


def derived_address(key: str, prefix: str) -> str:
    """Return the address of a key inside a /64."""
    try:
        raw = base64.b64decode(key, validate=True)
        network = ipaddress.IPv6Network(prefix)
    except (binascii.Error, TypeError, ValueError) as error:
        raise ValueError(f"derived_address: {error}") from error
    if len(raw) != 32:
        raise ValueError("derived_address: not a WireGuard key")
    if network.prefixlen != 64:
        raise ValueError(f"derived_address: {prefix} is not a /64")
    host = int.from_bytes(hashlib.sha256(raw).digest()[:8], "big")
    return str(network[host])


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        """Name the filters."""
        return {"derived_address": derived_address}
