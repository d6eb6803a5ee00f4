"""Agents as real processes in namespaces, on one underlay with a wire of any delay.

::

     lan1 -- agent 1 --+                  +-- agent 2 -- lan2
                       +--[ underlay ]--+
                map server ms1 --+  (bridge; one wire in user space between each host and it)

Agent N: underlay 192.0.2.(10+N) and 2001:db8:6::(10+N), host EIDs 10.66.N.1 and fd66::N, router
prefixes 10.77.N.0/24 and fd88:N::/64 with a host .2 (::2) in lanN.
"""

import contextlib
import ipaddress
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from support.map_server import CONTROL_PREFIX, MapServer
from support.netns import Namespace, Netbed, alive, netbed, wait_until
from wgmap.addresses import Endpoint, IPNetwork
from wgmap.wg.keys import PublicKey
from wgmap_agent.runner import keys
from wgmap_chaos.lab import toml
from wgmap_chaos.lab.relay import Quality, RelayControl

PROGRAM = Path(sys.executable).with_name("wgmap-agent")
OVERLAY = ("10.66.0.0/16", "10.77.0.0/16", "fd66::/64", "fd88::/16")
START_S = 30.0
Sections: TypeAlias = Mapping[str, Mapping[str, Any]]  # of a configuration file


@dataclass
class AgentHost:
    """A namespace with one agent, whether it runs or not."""

    number: int
    namespace: Namespace
    lan: Namespace
    directory: Path
    port: str  # the interface to the underlay
    tun: str
    control: str
    data: str
    control_key: PublicKey
    bed: Netbed
    process: subprocess.Popen[str] | None = None
    logs: list[Path] = field(default_factory=list)

    @property
    def eids(self) -> tuple[str, str]:
        """The host EIDs, IPv4 first."""
        return f"10.66.{self.number}.1", f"fd66::{self.number}"

    @property
    def lan_hosts(self) -> tuple[str, str]:
        """The host behind the agent, IPv4 first."""
        return f"10.77.{self.number}.2", f"fd88:{self.number}::2"

    @property
    def underlay(self) -> tuple[str, str]:
        """The underlay addresses, IPv4 first."""
        return f"192.0.2.{10 + self.number}", f"2001:db8:6::{10 + self.number:x}"

    @property
    def prefixes(self) -> tuple[IPNetwork, ...]:
        """What it registers."""
        texts = (*self.eids, f"10.77.{self.number}.0/24", f"fd88:{self.number}::/64")
        return tuple(ipaddress.ip_network(text) for text in texts)

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.directory / "agent.toml"

    @property
    def socket(self) -> Path:
        """The status socket."""
        return self.directory / "agent.sock"

    @property
    def interfaces(self) -> tuple[str, str, str]:
        """The interfaces that the agent makes."""
        return self.tun, self.control, self.data

    def write_config(self, servers: list[MapServer], sections: Sections | None = None) -> None:
        """Write the configuration file; ``sections``: what is added to it or changed."""
        document: dict[str, Any] = {
            "agent": {
                "name": f"a{self.number}",
                "prefixes": [str(one) for one in self.prefixes],
                "overlay": list(OVERLAY),
                "state_dir": str(self.directory / "state"),
                "socket": str(self.socket),
            },
            "tun": {"interface": self.tun},
            "data": {"interface": self.data},
            "control": {"interface": self.control, "prefix": str(CONTROL_PREFIX)},
        }
        for name, changes in (sections or {}).items():
            document.setdefault(name, {}).update(changes)
        document["server"] = [
            {
                "name": server.name,
                "control_key": str(server.key.public),
                "endpoint": str(server.endpoint),
                "control_address": str(server.address),
            }
            for server in servers
        ]
        self.config.write_text(toml.dumps(document))

    def start(self) -> None:
        """Start the agent and wait until it is registered."""
        self.spawn()
        wait_until(self.registered, f"agent {self.number} registered\n{self.log()}", START_S)

    def spawn(self) -> subprocess.Popen[str]:
        """Start the agent."""
        log = self.directory / f"agent{len(self.logs)}.log"
        self.logs.append(log)
        with log.open("w") as output:
            self.process = self.bed.popen(
                self.namespace,
                *(str(PROGRAM), "run", "--config", str(self.config), "--verbose"),
                stdout=output,
                stderr=output,
            )
        return self.process

    def kill(self) -> None:
        """End the agent as a crash does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def terminate(self) -> int:
        """Stop the agent as a service manager does; returns its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(10)

    def registered(self) -> bool:
        """Tell whether the agent says that it is registered."""
        assert self.process is not None
        assert self.process.poll() is None, f"agent {self.number} died:\n{self.log()}"
        with contextlib.suppress(AssertionError, ValueError):
            return bool(self.status()["registered"])
        return False

    def status(self) -> dict[str, Any]:
        """Ask the agent."""
        answer: dict[str, Any] = json.loads(self.ask("status", "--json"))
        return answer

    def ask(self, *arguments: str, check: bool = True) -> str:
        """Run a command of ``wgmap-agent`` against this agent."""
        program = (str(PROGRAM), "--socket", str(self.socket), *arguments)
        return self.namespace.run(*program, timeout_s=30, check=check)

    def log(self) -> str:
        """Return what the agent wrote."""
        return "\n".join(path.read_text() for path in self.logs)

    def carriers(self) -> set[int]:
        """Return the processes in the namespace that are not the agent: wireguard-go."""
        own = {self.process.pid} if self.process is not None else set()
        return {pid for pid in self.namespace.pids() if pid not in own and alive(pid)}


@dataclass
class World:
    """Everything on one underlay."""

    bed: Netbed
    underlay: Namespace
    bridge: str
    wires: list[tuple[str, str]] = field(default_factory=list)

    def attach(self, namespace: Namespace, label: str, addresses: list[str]) -> str:
        """Join a namespace to the underlay; returns its interface."""
        port, outer = self.bed.veth(namespace, self.underlay, addresses, label=label)
        inner, bridged = self.bed.veth(self.underlay, self.underlay, label=f"{label}b")
        self.underlay.ip("link", "set", bridged, "master", self.bridge)
        for end in (outer, inner):  # the underlay itself has no business on the wire
            self.underlay.run("sysctl", "-qw", f"net.ipv6.conf.{end}.disable_ipv6=1")
        self.wires += [(outer, inner), (inner, outer)]
        return port


@contextmanager
def world(prefix: str) -> Iterator[World]:
    """Make an underlay; its wires carry from ``connect`` on."""
    with netbed(prefix) as bed:
        underlay = bed.namespace("u")
        bridge = bed.name("br")
        underlay.ip("link", "add", bridge, "type", "bridge")
        underlay.ip("link", "set", bridge, "up")
        yield World(bed, underlay, bridge)


def connect(net: World, directory: Path, delay_ms: float) -> RelayControl:
    """Carry frames; ``delay_ms``: one way between any two hosts (two wires)."""
    control = directory / "relay.sock"
    net.bed.popen(
        net.underlay,
        *(sys.executable, "-m", "wgmap_chaos.lab.relay", "--control", str(control)),
        *("--delay", str(delay_ms / 2)),
        *(f"{source}:{target}" for source, target in net.wires),
    )
    wait_until(control.exists, "the relay listens")
    return RelayControl(control)


def set_delay(relay: RelayControl, delay_ms: float) -> None:
    """Change the one-way delay between any two hosts."""
    relay.set(Quality(delay_ms / 2))


def make_server(net: World, number: int, version: int = 4) -> MapServer:
    """Make a map server on the underlay, reached over this IP version."""
    namespace = net.bed.namespace(f"s{number}")
    net.attach(namespace, f"s{number}", [f"192.0.2.{number}/24", f"2001:db8:6::{number}/64"])
    address = f"192.0.2.{number}" if version == 4 else f"2001:db8:6::{number}"
    endpoint = Endpoint(ipaddress.ip_address(address), 51822)
    return MapServer(net.bed, namespace, f"ms{number}", endpoint)


def make_agent(
    net: World,
    number: int,
    directory: Path,
    servers: list[MapServer],
    rp_filter: int = 0,
    sections: Sections | None = None,
) -> AgentHost:
    """Make a host with an agent, enrolled and not started, and a LAN behind it."""
    bed = net.bed
    namespace, lan = bed.namespace(f"a{number}"), bed.namespace(f"l{number}")
    for kind in ("all", "default"):
        namespace.run("sysctl", "-qw", f"net.ipv4.conf.{kind}.rp_filter={rp_filter}")
    underlay = [f"192.0.2.{10 + number}/24", f"2001:db8:6::{10 + number:x}/64"]
    port = net.attach(namespace, f"a{number}", underlay)
    _attach_lan(bed, namespace, lan, number)
    own = directory / f"a{number}"
    own.mkdir()
    control_key = PublicKey.parse(keys.make(own / "state")["control_key"])
    tun, control, data = (bed.name(f"{kind}{number}") for kind in "tcd")
    host = AgentHost(number, namespace, lan, own, port, tun, control, data, control_key, bed)
    for server in servers:
        server.enrol(control_key, host.prefixes)
    host.write_config(servers, sections)
    return host


def _attach_lan(bed: Netbed, namespace: Namespace, lan: Namespace, number: int) -> None:
    near = [f"10.77.{number}.1/24", f"fd88:{number}::1/64"]
    far = [f"10.77.{number}.2/24", f"fd88:{number}::2/64"]
    bed.veth(namespace, lan, near, far, label=f"l{number}")
    lan.ip("route", "add", "default", "via", f"10.77.{number}.1")
    lan.ip("route", "add", "default", "via", f"fd88:{number}::1")
    namespace.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
