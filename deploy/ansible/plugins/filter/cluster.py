"""Filters that judge what ``wgmap status --json`` says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BEHIND = 1000  # entries of the log that a server may lack and still be in step

DOCUMENTATION = """
name: trouble
positional: absent
short_description: List what is wrong with a cluster
description:
  - Reads the output of C(wgmap status --json).
  - An empty list means that there is a leader, and that every server is there, answers with
    authority and is in step.
options:
  _input:
    description: The output; empty or broken output is trouble of its own.
    type: str
    required: true
  absent:
    description: Servers that are known to be away, which is no trouble then.
    type: list
    elements: str
    default: []
  expected:
    description: Releases that servers must run, by their names; of others it does not matter.
    type: dict
    default: {}
"""

EXAMPLES = """
healthy: "{{ status.stdout | wgmap.rollout.trouble | length == 0 }}"
"""

RETURN = """
_value:
  description: One sentence for each thing that is wrong.
  type: list
  elements: str
"""


def trouble(
    text: str, absent: Sequence[str] = (), expected: Mapping[str, str] | None = None
) -> list[str]:
    """Return one sentence for each thing that is wrong."""
    try:
        status = json.loads(text)
        servers = status["servers"]
        newest = max(one["applied"] or 0 for one in servers)
    except (KeyError, TypeError, ValueError):
        return ["the server does not tell its state"]
    found = [] if status["leader"] else ["there is no leader"]
    for one in servers:
        if one["name"] not in absent:
            found += _of_server(one, newest, (expected or {}).get(one["name"]))
    return found


def _of_server(one: dict[str, Any], newest: int, release: str | None) -> list[str]:
    if one["state"] == "unreachable":
        return [f"{one['name']} is unreachable"]
    if not one["fresh"]:
        return [f"{one['name']} does not answer with authority"]
    if release not in (None, one.get("release")):
        return [f"{one['name']} runs {one.get('release')}, not {release}"]
    behind = newest - (one["applied"] or 0)
    return [f"{one['name']} is {behind} entries behind"] if behind > BEHIND else []


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        """Name the filters."""
        return {"trouble": trouble}
