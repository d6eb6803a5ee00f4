"""Other settings for some agents of a lab, for a while."""

import os
import signal
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from support.lab import Lab, wait_until
from wgmap_chaos.lab import removal, toml
from wgmap_chaos.lab.inventory import AgentEntry


@contextmanager
def reconfigured(lab: Lab, agents: Sequence[AgentEntry], **sections: Any) -> Iterator[None]:
    """Restart agents with these keys of their sections changed; and as they were afterwards."""
    names = [agent.name for agent in agents]
    old = {agent.name: agent.config.read_text() for agent in agents}
    try:
        for agent in agents:
            document = tomllib.loads(old[agent.name])
            for section, changes in sections.items():
                document.setdefault(section, {}).update(changes)
            agent.config.write_text(toml.dumps(document))
        restart(lab, names)
        yield
    finally:
        for agent in agents:
            agent.config.write_text(old[agent.name])
        restart(lab, names)


def restart(lab: Lab, names: Sequence[str]) -> None:
    """End agents as a service manager does, start them, and wait until they are registered."""
    for name in names:
        pid = lab.file.agent(name).pids["agent"]
        if pid is not None and removal.alive(pid):
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda p=pid: not removal.alive(p), f"{name} ends")  # type: ignore[misc]
    lab.chaos("start-agents", *names)
    for name in names:
        agent = lab.file.agent(name)
        wait_until(lambda a=agent: lab.agent_status(a)["registered"], f"{name} registers")  # type: ignore[misc]
