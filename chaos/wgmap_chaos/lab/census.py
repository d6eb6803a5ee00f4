"""A lab as it is at this moment, for ``lab.json``."""

from collections.abc import Mapping
from ipaddress import IPv6Address

from wgmap_chaos.lab import observation
from wgmap_chaos.lab.inventory import AgentEntry, Inventory, Pids, ServerEntry, UnderlayBridge
from wgmap_chaos.lab.topology import Agent, Paths, Server, Topology


def take(topology: Topology, controls: Mapping[str, IPv6Address]) -> Inventory:
    """Describe the lab; ``controls`` are the agents' control addresses by name."""
    paths = topology.paths
    return Inventory(
        servers=tuple(_server(server, paths) for server in topology.servers),
        agents=tuple(_agent(agent, paths, controls[agent.name]) for agent in topology.agents),
        underlay_bridge=UnderlayBridge(netns=topology.netns, name=topology.bridge),
    )


def _server(server: Server, paths: Paths) -> ServerEntry:
    return ServerEntry(
        name=server.name,
        netns=server.netns,
        underlay=server.underlay4.ip,
        control=server.control,
        mesh=server.mesh,
        underlay_port=server.port.host,
        control_interface=server.control_interface,
        mesh_interface=server.mesh_interface,
        pids=observation.server_pids(server.netns, paths.state(server.name)),
        wireguard=_wireguard(server.control_interface, server.mesh_interface),
        state_dir=paths.state(server.name),
        admin_socket=paths.socket(server.name),
        config=paths.config(server.name),
    )


def _agent(agent: Agent, paths: Paths, control: IPv6Address) -> AgentEntry:
    return AgentEntry(
        name=agent.name,
        netns=agent.netns,
        underlay=(agent.underlay4.ip, agent.underlay6.ip),
        underlay_port=agent.port.host,
        control=control,
        eids=tuple(eid.network_address for eid in agent.eids),
        data_interface=agent.data_interface,
        control_interface=agent.control_interface,
        tun=agent.tun,
        pids={"agent": observation.agent_pid(agent.netns, paths.config(agent.name))},
        wireguard=_wireguard(agent.control_interface, agent.data_interface),
        state_dir=paths.state(agent.name),
        socket=paths.socket(agent.name),
        config=paths.config(agent.name),
    )


def _wireguard(*interfaces: str) -> Pids:
    return {interface: observation.wireguard_pid(interface) for interface in interfaces}
