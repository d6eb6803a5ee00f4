"""The agent's configuration as ``wgmap peer add`` prints it: TOML with advice in comments."""

import ipaddress
import json
from collections.abc import Iterable, Iterator, Mapping

from wgmap.addresses import Endpoint, IPNetwork, prefix_from_bytes
from wgmap_cluster.fsm.rows import PeerRow, ServerRow
from wgmap_cluster.replica.views import key_text


def render(
    name: str,
    peer: PeerRow,
    servers: Mapping[str, ServerRow],
    overlay: tuple[IPNetwork, ...],
    control_prefix: IPNetwork,
) -> str:
    """Write the configuration of an agent, or a note for the owner of a plain LISP client."""
    lines = (
        _agent(name, peer, servers, overlay, control_prefix)
        if peer.control_key
        else _lisp_client(name, peer, servers)
    )
    return "\n".join(lines) + "\n"


def _agent(
    name: str,
    peer: PeerRow,
    servers: Mapping[str, ServerRow],
    overlay: tuple[IPNetwork, ...],
    control_prefix: IPNetwork,
) -> Iterator[str]:
    prefixes = [prefix_from_bytes(prefix) for prefix in peer.prefixes]
    yield f"# Configuration of the wgmap agent {name}, for its /etc/wgmap-agent/agent.toml."
    yield "# The private keys are the agent's own: `wgmap-agent keygen` makes them."
    yield "[agent]"
    yield f"name = {json.dumps(name)}"
    yield f"instance = {peer.instance}"
    yield "# What this host owns inside the overlay; enrolled, so adding here needs an operator."
    yield f"prefixes = {_array(prefixes)}"
    yield "# What goes through tunnels; everything else is left to the host's own routes."
    yield f"overlay = {_array(_routed(overlay, prefixes))}"
    yield '# state_dir = "/var/lib/wgmap-agent"'
    yield '# socket = "/run/wgmap-agent/agent.sock"'
    yield ""
    yield "[tun]"
    yield "# The underlay's MTU less 80; less still behind PPPoE."
    yield "mtu = 1420"
    yield ""
    yield "[control]"
    yield f'prefix = "{control_prefix}"'
    yield "# The agent's UDP ports; behind a NAT or on a shared host, change them here."
    yield "# port = 51822"
    yield ""
    yield "[data]"
    yield "# port = 51820"
    for server, row in sorted(servers.items()):
        yield from _server(server, row)


def _server(name: str, row: ServerRow) -> Iterator[str]:
    endpoint = Endpoint(ipaddress.ip_address(row.underlay), row.control_port)
    yield ""
    yield "[[server]]"
    yield f"name = {json.dumps(name)}"
    yield f'control_key = "{key_text(row.control_key)}"'
    yield "# As the servers see themselves; behind a port forwarding, write the outer address."
    yield f'endpoint = "{endpoint}"'
    yield f'control_address = "{ipaddress.ip_address(row.control_address)}"'


def _routed(overlay: tuple[IPNetwork, ...], prefixes: Iterable[IPNetwork]) -> list[IPNetwork]:
    """Return the overlay's prefixes, and those enrolled ones that lie outside."""
    outside = [prefix for prefix in prefixes if not any(_inside(prefix, o) for o in overlay)]
    return [*overlay, *outside]


def _inside(prefix: IPNetwork, wide: IPNetwork) -> bool:
    return prefix.version == wide.version and prefix.subnet_of(wide)  # type: ignore[arg-type]


def _array(prefixes: Iterable[IPNetwork]) -> str:
    return json.dumps([str(prefix) for prefix in prefixes])


def _lisp_client(name: str, peer: PeerRow, servers: Mapping[str, ServerRow]) -> Iterator[str]:
    address = ipaddress.ip_address(peer.control_address)
    yield f"# {name} is a plain LISP client: there is no wgmap agent to configure."
    yield f"# It must register from {address}, key id 0 or any other, with the map servers"
    for server, row in sorted(servers.items()):
        yield f"#   {server}: {ipaddress.ip_address(row.underlay)}"
