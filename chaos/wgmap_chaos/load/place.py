"""Where light clients live: a namespace of their own on the lab's underlay.

Its name carries the lab's id, so that ``lab down`` takes it along. What comes from here is not
delayed by the lab's relay; what goes here is.
"""

from collections.abc import Mapping, Sequence

from wgmap.addresses import host_prefix
from wgmap.wg.keys import PublicKey
from wgmap_chaos.lab import shell, topology
from wgmap_chaos.lab.inventory import Inventory, ServerEntry
from wgmap_chaos.lab.topology import UNDERLAY4, Topology
from wgmap_chaos.load.light import Identity
from wgmap_chaos.load.tunnel import ServerPlace
from wgmap_cluster.cli.client import Client

CONTROL_PORT = 51822
ADDRESS = UNDERLAY4[10]  # between the servers' and the agents'
BATCH = 100  # peers in one command


def make(lab: Topology) -> str:
    """Make the namespace and put it on the bridge; return its name. Raises LabError."""
    netns = f"{topology.netns_prefix(lab.id)}lt"
    inside, outside = (f"{topology.interface_prefix(lab.id)}lt-{end}" for end in ("eth", "prt"))
    _ip("netns", "add", netns)
    _ip("-n", netns, "link", "set", "lo", "up")
    link = ("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", netns)
    _ip("-n", lab.netns, *link)
    _ip("-n", lab.netns, "link", "set", "dev", outside, "master", lab.bridge, "up")
    _ip("-n", netns, "address", "add", f"{ADDRESS}/{UNDERLAY4.prefixlen}", "dev", inside)
    _ip("-n", netns, "link", "set", "dev", inside, "up")
    return netns


def servers(lab: Inventory) -> list[ServerPlace]:
    """Return the map servers as a client must know them; raises LabError."""
    return [_place(server) for server in lab.servers]


def _place(server: ServerEntry) -> ServerPlace:
    argv = ["wg", "show", server.control_interface, "public-key"]
    key = PublicKey.parse(shell.run(shell.inside(server.netns, argv)))
    return ServerPlace(server.name, (str(server.underlay), CONTROL_PORT), key, server.control)


def enrol(server: ServerEntry, peers: Sequence[Mapping[str, object]]) -> None:
    """Enrol light clients, many at once; raises WgmapError."""
    client = Client(server.admin_socket)
    for start in range(0, len(peers), BATCH):
        client.post("/v1/imports", {"peers": peers[start : start + BATCH]})


def enrolment(identity: Identity) -> dict[str, object]:
    """Return what the admin API wants to know of a light client."""
    return {
        "name": identity.name,
        "prefixes": [str(host_prefix(identity.eid))],
        "control_key": str(identity.key.public),
        "endpoint_allow": [str(UNDERLAY4)],
    }


def _ip(*argv: str) -> None:
    shell.run(["ip", *argv])
