"""What a lab's daemons find in their environment beside our own: a JSON file for each host.

It is read whenever a daemon of the host is started, so that whoever changes it and restarts the
daemon has changed what runs there.
"""

import json
import os
from collections.abc import Callable, Mapping

from wgmap_chaos.lab.topology import Host, Paths, Topology

Environments = Callable[[Topology, Host], Mapping[str, str]]


def nothing(_topology: Topology, _host: Host) -> Mapping[str, str]:
    """Add nothing: what a lab does that is not asked for more."""
    return {}


def of(paths: Paths, name: str) -> dict[str, str]:
    """Return the whole environment for one host's daemon; raises OSError, ValueError."""
    return {**os.environ, **added(paths, name)}


def added(paths: Paths, name: str) -> dict[str, str]:
    """Return what is added for one host; raises OSError, ValueError."""
    path = paths.environment(name)
    variables: dict[str, str] = json.loads(path.read_bytes()) if path.exists() else {}
    return variables


def add(paths: Paths, name: str, variables: Mapping[str, str]) -> None:
    """Add or change variables of one host, from its daemon's next start on; raises OSError."""
    if variables:
        paths.environment(name).write_text(json.dumps({**added(paths, name), **variables}))
