"""The daemons' configuration files, as data."""

import tomllib
from collections.abc import Mapping
from typing import Any

from wgmap_chaos.lab.topology import CONTROL_PREFIX, OVERLAY, Agent, Server, Topology

Keys = Mapping[str, str]  # what keygen prints: name of the key -> base64


def server_settings(topology: Topology, server: Server, keys: Mapping[str, Keys]) -> dict[str, Any]:
    """Return the configuration of a server; ``keys`` are those of all servers, by name."""
    return {
        "server": {
            "name": server.name,
            "state_dir": str(topology.paths.state(server.name)),
            "admin_socket": str(topology.paths.socket(server.name)),
        },
        "control": {"interface": server.control_interface, "prefix": str(CONTROL_PREFIX)},
        "mesh": {"interface": server.mesh_interface},
        "bootstrap": {
            "server": [_bootstrap(other, keys[other.name]) for other in topology.servers]
        },
        "overlay": {"prefixes": [str(prefix) for prefix in OVERLAY]},
    }


def _bootstrap(server: Server, keys: Keys) -> dict[str, str]:
    return {
        "name": server.name,
        "mesh_key": keys["mesh_key"],
        "control_key": keys["control_key"],
        "endpoint": str(server.underlay4.ip),
        "mesh_address": str(server.mesh),
        "control_address": str(server.control),
    }


def agent_settings(topology: Topology, agent: Agent, printed: str) -> dict[str, Any]:
    """Fit the configuration that enrolment printed to the agent's place in the lab.

    Raises tomllib.TOMLDecodeError.
    """
    document = tomllib.loads(printed)
    _section(document, "agent").update(
        state_dir=str(topology.paths.state(agent.name)),
        socket=str(topology.paths.socket(agent.name)),
    )
    _section(document, "tun")["interface"] = agent.tun
    _section(document, "control")["interface"] = agent.control_interface
    _section(document, "data")["interface"] = agent.data_interface
    return document


def _section(document: dict[str, Any], name: str) -> dict[str, Any]:
    section: dict[str, Any] = document.setdefault(name, {})
    return section
