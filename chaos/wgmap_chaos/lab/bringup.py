"""Making a new cluster: keys, configuration, first start, enrolment."""

import json
import tomllib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, TypeVar

from wgmap.addresses import control_address
from wgmap.wg.keys import PublicKey
from wgmap_chaos.lab import shell, toml
from wgmap_chaos.lab.daemons import Daemons
from wgmap_chaos.lab.errors import LabError
from wgmap_chaos.lab.settings import Keys, agent_settings, server_settings
from wgmap_chaos.lab.topology import (
    CONTROL_PREFIX,
    UNDERLAY4,
    UNDERLAY6,
    Agent,
    Server,
    Topology,
)

WORKERS = 4  # the programs are mostly start-up; more at once would only wait for a processor
HostT = TypeVar("HostT", Server, Agent)
ResultT = TypeVar("ResultT")


def bring_up(topology: Topology, daemons: Daemons) -> dict[str, IPv6Address]:
    """Start servers and agents of a new lab; return the agents' control addresses by name.

    When it returns, every agent is registered on a quorum and every server knows it. Raises
    LabError.
    """
    pool = ThreadPoolExecutor(WORKERS)
    try:
        return _bring_up(topology, daemons, pool)
    finally:
        # After a failure nobody waits for the others: the lab is taken away under them.
        daemons.give_up()
        pool.shutdown(wait=False, cancel_futures=True)


def _bring_up(
    topology: Topology, daemons: Daemons, pool: ThreadPoolExecutor
) -> dict[str, IPv6Address]:
    def each(
        work: Callable[[HostT], ResultT], hosts: Iterable[HostT]
    ) -> Callable[[], dict[str, ResultT]]:
        futures = {host.name: pool.submit(work, host) for host in hosts}
        return lambda: {name: future.result() for name, future in futures.items()}

    server_keys = each(lambda host: _keygen("wgmap-server", host, topology), topology.servers)
    agent_keys = each(lambda host: _keygen("wgmap-agent", host, topology), topology.agents)
    for server in topology.servers:
        _write(topology.paths.config(server.name), server_settings(topology, server, server_keys()))
    for server in topology.servers:
        daemons.start_server(server)
    daemons.wait_servers(topology.servers)
    daemons.wait_leader(topology.servers)
    keys = agent_keys()
    each(lambda host: _enrol(host, keys[host.name]["control_key"], topology), topology.agents)()
    for agent in topology.agents:
        daemons.start_agent(agent)
    daemons.wait_resolved(topology.agents)  # costs less than asking the agents
    each(daemons.wait_registered, topology.agents)()
    return {
        name: control_address(CONTROL_PREFIX, PublicKey.parse(printed["control_key"]))
        for name, printed in keys.items()
    }


def _keygen(program: str, host: Server | Agent, topology: Topology) -> Keys:
    state = str(topology.paths.state(host.name))
    argv = [shell.program(program), "keygen", "--dir", state, "--json"]
    printed = shell.run(shell.inside(host.netns, argv))
    try:
        keys: Keys = json.loads(printed)
        PublicKey.parse(keys["control_key"])
    except (ValueError, KeyError, TypeError) as error:
        raise LabError(f"{program} keygen printed {printed!r}: {error}") from error
    return keys


def _enrol(agent: Agent, control_key: str, topology: Topology) -> None:
    """Enrol an agent on the first server and write the configuration that this prints."""
    server = topology.servers[0]
    argv = [
        *(shell.program("wgmap"), "--socket", str(topology.paths.socket(server.name))),
        *("peer", "add", agent.name, "--control-key", control_key),
    ]
    for eid in agent.eids:
        argv += ["--prefix", str(eid)]
    for network in (UNDERLAY4, UNDERLAY6):
        argv += ["--endpoint-allow", str(network)]
    printed = shell.run(shell.inside(server.netns, argv))
    try:
        settings = agent_settings(topology, agent, printed)
    except tomllib.TOMLDecodeError as error:
        raise LabError(f"wgmap peer add printed no TOML ({error}):\n{printed}") from error
    _write(topology.paths.config(agent.name), settings)


def _write(path: Path, settings: Mapping[str, Any]) -> None:
    path.write_text(toml.dumps(settings))
