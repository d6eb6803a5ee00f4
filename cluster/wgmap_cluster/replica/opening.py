"""Opens the replicated log as the configuration says."""

import hashlib
import ipaddress
from collections.abc import Callable
from pathlib import Path

from wgmap.addresses import Endpoint
from wgmap_cluster.config import RAFT_PORT, ServerConfig
from wgmap_cluster.fsm.machine import Machine
from wgmap_cluster.raft.interface import LogError, Member
from wgmap_cluster.raft.log import RaftLog
from wgmap_cluster.replica.identity import ClusterIdentity


def open_log(
    config: ServerConfig, machine: Machine, on_fatal: Callable[[LogError], None]
) -> RaftLog:
    """Return the log, not started; ``on_fatal`` is called once when it cannot go on."""
    directory = config.server.state_dir
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    mesh = config.mesh
    if mesh is None:
        alone = Member(config.server.name, str(_loopback(config.server.state_dir)))
        return RaftLog(
            *(config.server.name, [alone], directory, machine),
            cluster_id=ClusterIdentity(machine, directory),
            on_fatal=on_fatal,
            alone=True,
        )
    members = [
        Member(server.name, str(Endpoint(server.mesh_address, mesh.raft_port)))
        for server in config.bootstrap.server
    ]
    return RaftLog(
        config.server.name,
        members,
        directory,
        machine,
        bind_device=mesh.interface,
        cluster_id=ClusterIdentity(machine, directory),
        on_fatal=on_fatal,
    )


def _loopback(state_dir: Path) -> Endpoint:
    """Give a server without a mesh an address for its log, where nobody listens or dials."""
    digest = hashlib.sha256(str(state_dir.resolve()).encode()).digest()
    host = int.from_bytes(digest[:3]) % ((1 << 24) - 2) + 1
    return Endpoint(ipaddress.IPv4Address((127 << 24) + host), RAFT_PORT)
