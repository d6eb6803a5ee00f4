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
INTERFACE = re.compile(r"[^\s/:]{1,15}")
BATCH = re.compile(r"[1-9][0-9]*%?")
LISTEN = re.compile(r"/.+|.+:[0-9]{1,5}")
PREFIX_FORM = "a prefix (ADDRESS/LENGTH without host bits)"


def wrong_settings(settings: dict[str, Any]) -> list[str]:
    """Return a sentence for each variable that is wrong."""
    found = []
    for name, value in settings.items():
        wrong = CHECKS[name](value) if name in CHECKS else None
        if wrong:
            found.append(f"{name}: {wrong}")
    found = found or _shared(settings)
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


def _whole(least: int, most: int) -> Callable[[Any], str | None]:
    def check(value: Any) -> str | None:
        good = str(value).isdecimal() and least <= int(value) <= most
        return None if good else f"{value} is not a whole number from {least} to {most}"

    return check


def _seconds(above: float, most: float = float("inf")) -> Callable[[Any], str | None]:
    def check(value: Any) -> str | None:
        try:
            good = above < float(value) <= most
        except (TypeError, ValueError):
            good = False
        until = "" if most == float("inf") else f" and at most {most:g}"
        return None if good else f"{value} is not a number of seconds above {above:g}{until}"

    return check


def _interface(value: Any) -> str | None:
    good = INTERFACE.fullmatch(str(value)) and str(value) not in (".", "..")
    return None if good else f"{value} is not a name of an interface (at most 15 characters)"


def _batch(value: Any) -> str | None:
    values = value if isinstance(value, list) and value else [value]
    good = all(BATCH.fullmatch(str(one)) for one in values)
    return None if good else f"{value} is neither a number of hosts nor a percentage"


def _shared(settings: dict[str, Any]) -> list[str]:
    """Name the variables of a host that must differ from another one and do not."""
    found, seen = [], {}
    for name, value in settings.items():
        if name in OWN:
            other = seen.setdefault((OWN[name], str(value)), name)
            if other != name:
                found.append(f"{name}: {value} is {other} too")
    return found


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


PORT = _whole(1, 65535)

# What no two variables of a host may share: UDP ports of the underlay, interfaces.
OWN = {
    "map_server_mesh_port": "server's port",
    "map_server_control_port": "server's port",
    "map_server_mesh_interface": "server's interface",
    "map_server_control_interface": "server's interface",
    "agent_control_port": "agent's port",
    "agent_data_port": "agent's port",
    "agent_second_data_port": "agent's port",
    "agent_tun_interface": "agent's interface",
    "agent_control_interface": "agent's interface",
    "agent_data_interface": "agent's interface",
    "agent_second_data_interface": "agent's interface",
}

CHECKS: dict[str, Callable[[Any], str | None]] = {
    "common_wheelhouse": _wheelhouse,
    "common_overlay": _some_prefixes,
    "common_control_prefix": _slash_64,
    "common_keep_releases": _whole(1, 1000),
    "map_server_name": _name,
    "map_server_staleness_s": _seconds(0.1, 60),
    "map_server_patience_s": _whole(1, 86400),
    "map_server_raft_port": PORT,
    "map_server_endpoint": _address,
    "map_server_mesh_prefix": _slash_64,
    "map_server_metrics": _listen,
    "agent_name": _name,
    "agent_prefixes": _some_prefixes,
    "agent_overlay": _some_prefixes,
    "agent_endpoint_allow": _prefixes,
    "agent_metrics": _listen,
    "agent_instance": _whole(0, (1 << 32) - 1),
    "agent_tun_mtu": _whole(1280, 65535),
    "agent_idle_s": _seconds(0),
    "agent_patience_s": _whole(1, 86400),
    "agent_jitter_s": _whole(0, 86400),
    "agent_batch": _batch,
    **{name: PORT if kind.endswith("port") else _interface for name, kind in OWN.items()},
}


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        """Name the filters."""
        return {"wrong_settings": wrong_settings}
