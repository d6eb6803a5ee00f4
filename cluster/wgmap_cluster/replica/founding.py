"""What an empty cluster starts from: the bootstrap command, from the configuration."""

from wgmap.addresses import Endpoint, prefix_to_bytes
from wgmap_cluster.config import MESH_PORT, BootstrapServer, ServerConfig
from wgmap_cluster.fsm.commands import Bootstrap, Origin
from wgmap_cluster.fsm.rows import ServerRow


def bootstrap_command(config: ServerConfig, cluster_id: bytes, wall: str) -> Bootstrap:
    """Build the command that every server of the first set may propose; one takes effect."""
    return Bootstrap(
        cluster_id=cluster_id,
        control_prefix=prefix_to_bytes(config.control.prefix),
        overlay=tuple(prefix_to_bytes(each) for each in config.overlay.prefixes),
        servers=tuple((each.name, server_row(config, each)) for each in config.bootstrap.server),
        origin=Origin(config.server.name, "bootstrap", wall),
    )


def server_row(config: ServerConfig, server: BootstrapServer) -> ServerRow:
    """Build a server's row; ports that its endpoint does not name are this server's own."""
    endpoint = server.endpoint
    return ServerRow(
        mesh_key=bytes(server.mesh_key),
        control_key=bytes(server.control_key),
        underlay=server.underlay.packed,
        control_port=endpoint.port if isinstance(endpoint, Endpoint) else config.control.port,
        mesh_port=config.mesh.port if config.mesh is not None else MESH_PORT,
        mesh_address=server.mesh_address.packed,
        control_address=server.control_address.packed,
    )
