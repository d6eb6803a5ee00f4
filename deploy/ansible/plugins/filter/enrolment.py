"""Filters that compare the agents of an inventory with what the cluster knows."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

DOCUMENTATION = """
name: enrolment
short_description: Say what must be done so that agents are enrolled
description:
  - Compares agents (name, control_key, instance, prefixes, endpoint_allow) with the output of
    C(wgmap --json peer list).
options:
  _input:
    description: The agents.
    type: list
    elements: dict
    required: true
  known:
    description: The output of C(wgmap --json peer list).
    type: str
    required: true
"""

EXAMPLES = """
todo: "{{ agents | wgmap.rollout.enrolment(peers.stdout) }}"
"""

RETURN = """
_value:
  description:
    - C(new) holds agents to be enrolled, C(changed) commands for those whose prefixes or key
      differ, C(refused) a sentence for each that cannot be enrolled.
  type: dict
"""


def enrolment(agents: list[dict[str, Any]], known: str) -> dict[str, list[Any]]:
    """Return what is new, what has changed, and what is refused."""
    peers = {peer["name"]: peer for peer in json.loads(known)}
    todo: dict[str, list[Any]] = {"new": [], "changed": [], "refused": []}
    for agent in agents:
        peer = peers.get(agent["name"])
        if peer is None:
            todo["new"].append(agent)
        elif reason := _refusal(agent, peer):
            todo["refused"].append(f"{agent['name']}: {reason}")
        elif arguments := _changes(agent, peer):
            todo["changed"].append({"name": agent["name"], "arguments": arguments})
    return todo


def _refusal(agent: dict[str, Any], peer: dict[str, Any]) -> str:
    if peer["revoked"]:
        return "was revoked; that is for good, give it another agent_name and new keys"
    if int(agent["instance"]) != peer["instance"]:
        return f"agent_instance: is enrolled in instance {peer['instance']}"
    return ""


def _changes(agent: dict[str, Any], peer: dict[str, Any]) -> list[str]:
    arguments = []
    if _networks(agent["prefixes"]) != _networks(peer["prefixes"]):
        arguments += [text for prefix in agent["prefixes"] for text in ("--prefix", prefix)]
    if agent["control_key"] != peer["control_key"]:
        arguments += ["--control-key", agent["control_key"]]
    return arguments


def _networks(prefixes: list[str]) -> set[Any]:
    return {ipaddress.ip_network(prefix) for prefix in prefixes}


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        """Name the filters."""
        return {"enrolment": enrolment}
