"""A filter that makes Prometheus' targets of an inventory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

DOCUMENTATION = """
name: scrape_targets
short_description: List whom Prometheus asks
description:
  - Hosts whose variable holds ADDRESS:PORT; those with a socket's path, or nothing, are left out.
positional: hostvars, variable
options:
  _input:
    description: Names of hosts.
    type: list
    elements: str
    required: true
  hostvars:
    description: The variables of all hosts.
    type: dict
    required: true
  variable:
    description: The variable that says where a host is asked.
    type: str
    required: true
"""

EXAMPLES = """
targets: "{{ groups.agents | wgmap.rollout.scrape_targets(hostvars, 'agent_metrics') }}"
"""

RETURN = """
_value:
  description: Entries of a file for file_sd_configs; the label C(instance) is the host's name.
  type: list
  elements: dict
"""


def scrape_targets(
    hosts: list[str], hostvars: Mapping[str, Mapping[str, Any]], variable: str
) -> list[dict[str, Any]]:
    """Return a target for each host that has a page on an address."""
    listening = {host: hostvars[host].get(variable) or "" for host in hosts}
    return [
        {"targets": [at], "labels": {"instance": host}}
        for host, at in listening.items()
        if at and not at.startswith("/")
    ]


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        """Name the filters."""
        return {"scrape_targets": scrape_targets}
