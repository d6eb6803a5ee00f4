"""Starting the lab's map servers and agents, and waiting until they do their work."""

import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from wgmap.errors import UnavailableError
from wgmap_chaos.lab import environment, observation, removal, shell
from wgmap_chaos.lab.errors import LabError
from wgmap_chaos.lab.topology import Agent, Host, Paths, Server, Topology
from wgmap_chaos.lab.waiting import POLL_S, Deadline

ORPHAN_S = 3.0
PROGRAM_POLL_S = 0.3  # where asking means to start a program


def start(paths: Paths, name: str, netns: str, program: str) -> shell.Daemon:
    """Start a host's daemon, whose configuration is written; raises LabError."""
    argv = [shell.program(program), "run", "--config", str(paths.config(name))]
    inside = shell.inside(netns, argv)
    return shell.Daemon(inside, paths.log(name), environment.of(paths, name))


class Daemons:
    """Starts the daemons of one lab, each in its namespace, and watches what it started.

    Every method raises LabError with the end of the daemon's log when something fails.
    """

    def __init__(self, topology: Topology, deadline: Deadline) -> None:
        """Every wait must be over by ``deadline``."""
        self._topology = topology
        self._paths = topology.paths
        self._deadline = deadline
        self._started: dict[str, shell.Daemon] = {}

    def start_server(self, server: Server) -> None:
        """Start a server whose configuration is written, unless its supervisor runs."""
        pids = observation.server_pids(server.netns, self._paths.state(server.name))
        if pids["supervisor"] is None:
            self._end_orphans(server)
            self._spawn(server, "wgmap-server")

    def start_agent(self, agent: Agent) -> None:
        """Start an agent whose configuration is written, unless it runs."""
        if observation.agent_pid(agent.netns, self._paths.config(agent.name)) is None:
            self._spawn(agent, "wgmap-agent")

    def wait_servers(self, servers: Iterable[Server]) -> None:
        """Wait until all processes of these servers run and answer."""
        for server in servers:
            self._wait(server, partial(self._serves, server), "all of it runs and answers")

    def wait_leader(self, servers: Iterable[Server]) -> None:
        """Wait until each of these servers knows a leader, and its cluster is founded."""
        for server in servers:
            self._wait(server, partial(self._takes_peers, server), "it has a leader and is founded")

    def wait_resolved(self, agents: Iterable[Agent]) -> None:
        """Wait until every server has a mapping for every EID of these agents."""
        for agent in agents:
            for server in self._topology.servers:
                for eid in agent.eids:
                    self._wait(
                        server,
                        partial(self._resolves, server, str(eid.network_address)),
                        f"it resolves {eid}",
                    )

    def wait_answering(self, agent: Agent) -> None:
        """Wait until an agent answers on its socket, registered or not."""
        self._wait(
            agent, lambda: self._agent_status(agent) is not None, "it answers", PROGRAM_POLL_S
        )

    def wait_registered(self, agent: Agent) -> None:
        """Wait until an agent is registered."""
        self._wait(
            agent,
            lambda: (self._agent_status(agent) or {}).get("registered"),
            "it is registered",
            PROGRAM_POLL_S,
        )

    def give_up(self) -> None:
        """End every wait that goes on in another thread."""
        self._deadline.expire()

    def majority_runs(self) -> bool:
        """Whether enough servers run for them to have a leader."""
        running = [
            observation.server_pids(server.netns, self._paths.state(server.name))["replica"]
            for server in self._topology.servers
        ]
        return sum(pid is not None for pid in running) * 2 > len(running)

    def _spawn(self, host: Host, program: str) -> None:
        self._started[host.name] = start(self._paths, host.name, host.netns, program)

    def _end_orphans(self, server: Server) -> None:
        """See the processes out that a dead supervisor left; they hold its sockets."""
        state = self._paths.state(server.name)
        grace = Deadline(ORPHAN_S)

        def gone() -> bool:
            pids = observation.server_pids(server.netns, state).values()
            left = [pid for pid in pids if pid is not None]
            if not grace.remaining:
                for pid in left:
                    removal.send_signal(pid, {removal.netns_id(server.netns)}, signal.SIGKILL)
            return not left

        self._wait(server, gone, "its processes end after their supervisor")

    def _wait(
        self, host: Host, condition: Callable[[], Any], what: str, poll_s: float = POLL_S
    ) -> None:
        log = self._paths.log(host.name)

        def checked() -> Any:
            self._check_alive()
            return condition()

        self._deadline.wait(checked, lambda: f"{host.name}: {what}\n{shell.tail(log)}", poll_s)

    def _check_alive(self) -> None:
        """See to it that nothing that was started has ended: no wait would succeed then."""
        for name, daemon in list(self._started.items()):
            if (code := daemon.exit_code()) is not None:
                tail = shell.tail(self._paths.log(name))
                raise LabError(f"{name} ended with code {code}\n{tail}")

    def _serves(self, server: Server) -> bool:
        pids = observation.server_pids(server.netns, self._paths.state(server.name))
        return None not in pids.values() and self._get(server, "/v1/status") is not None

    def _takes_peers(self, server: Server) -> bool:
        status = self._get(server, "/v1/status") or {}
        return bool(status.get("leader")) and bool(status.get("cluster_id"))

    def _resolves(self, server: Server, eid: str) -> bool:
        return bool((self._get(server, "/v1/resolve", eid=eid) or {}).get("found"))

    def _get(self, server: Server, resource: str, **query: str) -> Any:
        with suppress(UnavailableError):
            return observation.admin_get(self._paths.socket(server.name), resource, **query)
        return None

    def _agent_status(self, agent: Agent) -> Any:
        return observation.agent_status(self._paths.socket(agent.name))
