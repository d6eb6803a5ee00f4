"""What a lab consists of: names, links, addresses and paths, computed and not yet made.

    namespace of the underlay                               namespace of a host
    +------------------------------------------------+     +--------------------+
    |  bridge ---+-- near (delay and loss 0) ----------------- port             |
    |            +-- inner == outer .. relay .. near ----+    192.0.2.N/24      |
    |                (delay or loss set)             |     |  2001:db8:6::N/64  |
    +------------------------------------------------+     +--------------------+

Every name carries an id made from the real path of the lab's directory: what belongs to a lab
is found by name alone, and labs do not meet. Interface names are unique on the whole machine,
because the sockets of userspace WireGuard lie in one directory for all namespaces.
"""

import base64
import hashlib
import os
from dataclasses import dataclass
from ipaddress import (
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_network,
)
from pathlib import Path

from wgmap.addresses import IPNetwork
from wgmap.errors import ConfigError

MAX_SERVERS = 9  # .1 to .9
MAX_AGENTS = 244  # .11 to .254
FIRST_AGENT = 11
UNDERLAY4 = IPv4Network("192.0.2.0/24")
UNDERLAY6 = IPv6Network("2001:db8:6::/64")
MESH_PREFIX = IPv6Network("fd77:676d:6d65::/64")
CONTROL_PREFIX = IPv6Network("fd77:676d:6170::/64")
OVERLAY: tuple[IPNetwork, ...] = (IPv4Network("10.66.0.0/16"), IPv6Network("fd66::/64"))
RUN_ROOT = Path("/run")

_ID_LENGTH = 6  # base32: 30 bits, and room for "-a244-ctl" in the 15 characters of a name


def lab_id(directory: Path) -> str:
    """Return the id of the lab in ``directory``: six of a-z and 2-7, from its real path."""
    digest = hashlib.sha256(os.fsencode(os.path.realpath(directory))).digest()
    return base64.b32encode(digest).decode().lower()[:_ID_LENGTH]


@dataclass(frozen=True, slots=True)
class Port:
    """A host's place on the underlay: four interfaces, two veth pairs."""

    host: str  # inside the host's namespace
    near: str  # its other end; on the bridge while delay and loss are 0
    outer: str  # where the relay sends what it read from ``near``
    inner: str  # the other end of ``outer``; on the bridge while there is delay or loss


@dataclass(frozen=True, slots=True)
class Host:
    """What servers and agents have in common."""

    name: str
    netns: str
    port: Port
    underlay4: IPv4Interface
    underlay6: IPv6Interface
    control_interface: str


@dataclass(frozen=True, slots=True)
class Server(Host):
    """A map server; the addresses in mesh and control tunnel are fixed by the bootstrap."""

    mesh_interface: str
    mesh: IPv6Address
    control: IPv6Address


@dataclass(frozen=True, slots=True)
class Agent(Host):
    """An agent; its control address follows from its key."""

    data_interface: str
    tun: str
    eids: tuple[IPNetwork, ...]  # host prefixes, IPv4 first


@dataclass(frozen=True, slots=True)
class Paths:
    """Where a lab keeps its files. Sockets lie under /run: their paths must stay short."""

    directory: Path
    run: Path

    @property
    def inventory(self) -> Path:
        """``lab.json``; it exists exactly while a lab is complete."""
        return self.directory / "lab.json"

    @property
    def logs(self) -> Path:
        """The daemons' output; it outlives the lab."""
        return self.directory / "log"

    @property
    def perishable(self) -> tuple[Path, ...]:
        """What goes away with the lab."""
        return (self.directory / "state", self.directory / "config", self.run)

    def log(self, name: str) -> Path:
        """Return where the output of one daemon goes."""
        return self.logs / f"{name}.log"

    def state(self, name: str) -> Path:
        """Return the state directory of one daemon."""
        return self.directory / "state" / name

    def config(self, name: str) -> Path:
        """Return the configuration file of one daemon."""
        return self.directory / "config" / f"{name}.toml"

    def environment(self, name: str) -> Path:
        """Return what is added to the environment of one host's daemon (``lab.environment``)."""
        return self.directory / "config" / f"{name}.environment"

    def socket(self, name: str) -> Path:
        """Return the unix socket of one daemon."""
        return self.run / f"{name}.sock"


@dataclass(frozen=True, slots=True)
class Topology:
    """A whole lab."""

    id: str
    paths: Paths
    netns: str  # of the underlay
    bridge: str
    servers: tuple[Server, ...]
    agents: tuple[Agent, ...]

    @property
    def hosts(self) -> tuple[Server | Agent, ...]:
        """Servers, then agents."""
        return (*self.servers, *self.agents)

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Names of all namespaces, the underlay's first."""
        return (self.netns, *(host.netns for host in self.hosts))


def netns_prefix(lab: str) -> str:
    """Return what the names of a lab's namespaces start with."""
    return f"wgmap-{lab}-"


def interface_prefix(lab: str) -> str:
    """Return what the names of a lab's interfaces start with."""
    return f"{lab}-"


def paths(directory: Path) -> Paths:
    """Return where the lab in ``directory`` keeps its files."""
    real = Path(os.path.realpath(directory))
    return Paths(directory=real, run=RUN_ROOT / f"wgmap-lab-{lab_id(real)}")


def plan(directory: Path, servers: int, agents: int) -> Topology:
    """Compute a lab; raises ConfigError when a number is out of bounds."""
    if not 1 <= servers <= MAX_SERVERS:
        raise ConfigError(f"--servers must be 1 to {MAX_SERVERS}, not {servers}")
    if not 0 <= agents <= MAX_AGENTS:
        raise ConfigError(f"--agents must be 0 to {MAX_AGENTS}, not {agents}")
    lab = lab_id(directory)
    return Topology(
        id=lab,
        paths=paths(directory),
        netns=f"{netns_prefix(lab)}net",
        bridge=f"{interface_prefix(lab)}br",
        servers=tuple(_server(lab, number) for number in range(1, servers + 1)),
        agents=tuple(_agent(lab, number) for number in range(1, agents + 1)),
    )


def _server(lab: str, number: int) -> Server:
    name = f"ms{number}"
    return Server(
        name=name,
        netns=f"{netns_prefix(lab)}{name}",
        port=_port(lab, name),
        underlay4=_interface4(number),
        underlay6=_interface6(number),
        control_interface=f"{interface_prefix(lab)}{name}-ctl",
        mesh_interface=f"{interface_prefix(lab)}{name}-msh",
        mesh=MESH_PREFIX[number],
        control=CONTROL_PREFIX[number],
    )


def _agent(lab: str, number: int) -> Agent:
    name = f"a{number}"
    last = FIRST_AGENT - 1 + number
    return Agent(
        name=name,
        netns=f"{netns_prefix(lab)}{name}",
        port=_port(lab, name),
        underlay4=_interface4(last),
        underlay6=_interface6(last),
        control_interface=f"{interface_prefix(lab)}{name}-ctl",
        data_interface=f"{interface_prefix(lab)}{name}-dat",
        tun=f"{interface_prefix(lab)}{name}-tun",
        # fd66::N is written with the decimal digits of N, as 10.66.N.1 is
        eids=(ip_network(f"10.66.{number}.1/32"), ip_network(f"fd66::{number}/128")),
    )


def _port(lab: str, name: str) -> Port:
    start = f"{interface_prefix(lab)}{name}"
    return Port(f"{start}-eth", f"{start}-prt", f"{start}-out", f"{start}-inn")


def _interface4(last: int) -> IPv4Interface:
    return IPv4Interface(f"{UNDERLAY4[last]}/{UNDERLAY4.prefixlen}")


def _interface6(last: int) -> IPv6Interface:
    # Written with the decimal digits of the IPv4 address: 192.0.2.11 is 2001:db8:6::11.
    return IPv6Interface(f"{UNDERLAY6.network_address}{last}/{UNDERLAY6.prefixlen}")
