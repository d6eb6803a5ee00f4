"""A filter that judges an inventory's variables, all of them at once, before a host is touched."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

DOCUMENTATION = """
name: wrong_settings
short_description: List what is wrong with variables
description:
  - Judges each variable by its name; those that it does not know are let through.
options:
  _input:
    description: Variables by name.
    type: dict
    required: true
"""

EXAMPLES = """
wrong: "{{ {'agent_prefixes': agent_prefixes} | wgmap.rollout.wrong_settings }}"
"""

RETURN = """
_value:
  description: One sentence for each variable that is wrong; it begins with the variable's name.
  type: list
  elements: str
"""

WHEELHOUSE = re.compile(r"wgmap-wheelhouse-[0-9][^-]*-cp3[0-9]+-[a-z0-9_]+\.tar")
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}")
LISTEN = re.compile(r"/.+|.+:[0-9]{1,5}")
PREFIX_FORM = "a prefix (ADDRESS/LENGTH without host bits)"


def wrong_settings(settings: dict[str, Any]) -> list[str]:
    """Return a sentence for each variable that is wrong."""
    found = []
    for name, value in settings.items():
        wrong = CHECKS[name](value) if name in CHECKS else None
        if wrong:
            found.append(f"{name}: {wrong}")
    prefixes, overlay = settings.get("agent_prefixes"), settings.get("agent_overlay")
    if not found and prefixes and overlay:
        found += [
            f"agent_prefixes: {one} is outside of agent_overlay ({', '.join(overlay)})"
            for one in prefixes
            if not _inside(one, overlay)
        ]
    return found


def _prefixes(value: Any) -> str | None:
    if not isinstance(value, list):
        return f"{value} is not a list ([ONE, ANOTHER])"
    wrong = [str(one) for one in value if not _is_prefix(one)]
    return f"{', '.join(wrong)} is not {PREFIX_FORM}" if wrong else None


def _some_prefixes(value: Any) -> str | None:
    return _prefixes(value) or (None if value else "name at least one prefix")


def _slash_64(value: Any) -> str | None:
    good = _is_prefix(value) and ":" in value and value.endswith("/64")
    return None if good else f"{value} is not an IPv6 /64"


def _address(value: Any) -> str | None:
    try:
        ipaddress.ip_address(str(value))
    except ValueError:
        return f"{value} is not an address (agents cannot resolve names before they are connected)"
    return None


def _name(value: Any) -> str | None:
    good = NAME.fullmatch(str(value))
    return None if good else f"{value} is not a name of letters, digits, . _ -"


def _wheelhouse(value: Any) -> str | None:
    good = WHEELHOUSE.fullmatch(str(value).rsplit("/", maxsplit=1)[-1])
    form = "wgmap-wheelhouse-VERSION-PYTHON-PLATFORM.tar (make wheelhouse)"
    return None if good else f"{value} is not named {form}"


def _listen(value: Any) -> str | None:
    good = value == "" or LISTEN.fullmatch(str(value))
    return None if good else f"{value} is neither ADDRESS:PORT nor the path of a socket"


def _is_prefix(value: Any) -> bool:
    try:
        ipaddress.ip_network(value)
    except ValueError:
        return False
    return isinstance(value, str) and "/" in value


def _inside(value: str, wider: list[str]) -> bool:
    prefix = ipaddress.ip_network(value)
    return any(
        other.version == prefix.version and prefix.subnet_of(other)
        for other in map(ipaddress.ip_network, wider)
    )


CHECKS: dict[str, Callable[[Any], str | None]] = {
    "common_wheelhouse": _wheelhouse,
    "common_overlay": _some_prefixes,
    "common_control_prefix": _slash_64,
    "map_server_name": _name,
    "map_server_endpoint": _address,
    "map_server_mesh_prefix": _slash_64,
    "map_server_metrics": _listen,
    "agent_name": _name,
    "agent_prefixes": _some_prefixes,
    "agent_overlay": _some_prefixes,
    "agent_endpoint_allow": _prefixes,
    "agent_metrics": _listen,
}


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        """Name the filters."""
        return {"wrong_settings": wrong_settings}
