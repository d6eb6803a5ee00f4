"""The underlay: namespaces, a bridge, a port for each host, and a relay while it is not perfect.

With delay and loss 0 the hosts' ports are on the bridge. Otherwise each frame that a host sends
is read from ``near`` by the relay and comes to the bridge through ``outer`` and ``inner`` after
the delay, while frames to the host go from ``outer`` to ``near`` within the kernel: from host to
host there is one delay and one chance of loss.
"""

import json
import sys
import time
from collections.abc import Iterable

from wgmap_chaos.lab import relay, shell
from wgmap_chaos.lab.errors import LabError
from wgmap_chaos.lab.relay import Detour, Quality, RelayControl, RelayError
from wgmap_chaos.lab.topology import Host, Topology
from wgmap_chaos.lab.waiting import Deadline

RELAY_NAME = "relay"
START_S = 20.0
_DRAIN_S = 1.0
# Without one of its own a bridge takes a port's, and another when that port leaves.
_BRIDGE_MAC = "02:00:c0:00:02:fe"
# Deleting an address must not take those along that were added after it.
_SYSCTLS = (
    "net.ipv4.conf.all.promote_secondaries=1",
    "net.ipv4.conf.default.promote_secondaries=1",
)
_OFFLOADS = "tx off tso off gso off gro off"


def namespaces_script(topology: Topology) -> str:
    """Return ``ip -batch`` lines that make the namespaces."""
    return _lines(f"netns add {name}" for name in topology.namespaces)


def bridge_script(topology: Topology) -> str:
    """Return ``ip -batch`` lines, for the underlay's namespace, that make bridge and ports."""
    lines = [
        "link set lo up",
        f"link add name {topology.bridge} address {_BRIDGE_MAC}"
        " type bridge mcast_snooping 0 forward_delay 0",
        f"link set dev {topology.bridge} up",
    ]
    for host in topology.hosts:
        port = host.port
        lines += [
            f"link add name {port.near} type veth peer name {port.host} netns {host.netns}",
            f"link add name {port.outer} type veth peer name {port.inner}",
        ]
        for name in (port.near, port.outer, port.inner):
            lines += [f"link set dev {name} addrgenmode none", f"link set dev {name} up"]
        lines.append(f"link set dev {port.near} master {topology.bridge}")
    return _lines(lines)


def forward_rules(topology: Topology) -> str:
    """Return nft rules: what comes from the bridge to a relayed host needs no relay."""
    chains = [
        f'chain {host.name} {{ type filter hook ingress device "{host.port.outer}" priority 0;'
        f' fwd to "{host.port.near}"; }}\n'
        for host in topology.hosts
    ]
    return f"table netdev relay {{\n{''.join(chains)}}}\n"


def host_script(host: Host) -> str:
    """Return ``ip -batch`` lines, for the host's namespace, that bring its port up."""
    return _lines(
        [
            "link set lo up",
            f"address add {host.underlay4} dev {host.port.host}",
            f"address add {host.underlay6} dev {host.port.host} nodad",
            f"link set dev {host.port.host} up",
        ]
    )


def attach_script(topology: Topology, *, relayed: bool) -> str:
    """Return ``ip -batch`` lines that put each host on the bridge directly or by the relay."""
    lines = []
    for host in topology.hosts:
        off, on = host.port.inner, host.port.near
        if relayed:
            off, on = on, off
        lines += [f"link set dev {off} nomaster", f"link set dev {on} master {topology.bridge}"]
    return _lines(lines)


class Underlay:
    """Makes and changes the underlay of one lab."""

    def __init__(self, topology: Topology, lock: int) -> None:
        """Take the lab and the descriptor of its lock, which is held."""
        self._topology = topology
        self._keep = (lock,)
        self._control = RelayControl(topology.paths.socket(RELAY_NAME))

    def make(self) -> None:
        """Make everything but the relay; raises LabError."""
        topology = self._topology
        self._ip(["ip", "-batch", "-"], namespaces_script(topology))
        # Whoever puts an address on the bridge does not want the ports to answer for it.
        self._inside(topology.netns, "sysctl -qw net.ipv4.conf.default.arp_ignore=8")
        self._ip(["ip", "-n", topology.netns, "-batch", "-"], bridge_script(topology))
        self._inside(topology.netns, f"sysctl -qw net.ipv4.conf.{topology.bridge}.arp_ignore=0")
        self._run(shell.inside(topology.netns, ["nft", "-f", "-"]), forward_rules(topology))
        for netns in topology.namespaces:
            self._inside(netns, f"sysctl -qw {' '.join(_SYSCTLS)}")
        for host in topology.hosts:
            self._ip(["ip", "-n", host.netns, "-batch", "-"], host_script(host))
            self._inside(host.netns, f"ethtool -K {host.port.host} {_OFFLOADS}")

    def quality(self) -> Quality:
        """Return delay and loss as they are now."""
        try:
            return self._control.status().quality
        except RelayError:
            return Quality()

    def set(self, quality: Quality) -> None:
        """Change delay and loss; frames under way may be lost. Raises LabError."""
        if quality.perfect and not self.detours():
            self._remove_relay()
        else:
            self._relay(quality)

    def detours(self) -> tuple[Detour, ...]:
        """Return the detours as they are now."""
        try:
            return self._control.status().detours
        except RelayError:
            return ()

    def divert(self, source: Host, target: Host, extra_ms: float) -> None:
        """Make what one host sends to another later, beside the delay; 0: not any more.

        Raises LabError. Neighbour discovery is not delayed.
        """
        path = (source.port.near, self._mac(target))
        others = [one for one in self.detours() if (one.source, one.destination) != path]
        if extra_ms:
            others.append(Detour(*path, extra_ms))
            self._relay(self.quality())
        if self._alive():
            self._control.divert(others)
        if not others:
            self.set(self.quality())

    def _mac(self, host: Host) -> str:
        link = ["ip", "-n", host.netns, "-json", "link", "show", "dev", host.port.host]
        address: str = json.loads(shell.run(link, keep=self._keep))[0]["address"]
        return address

    def _relay(self, quality: Quality) -> None:
        if self._alive():
            self._control.set(quality)
        else:
            self._start_relay(quality)
        self._attach(relayed=True)

    def _remove_relay(self) -> None:
        if self._alive():
            self._control.set(Quality())
            self._drain()
        self._attach(relayed=False)
        if self._alive():
            self._control.stop()

    def _drain(self) -> None:
        """Give the frames under way the time to arrive, but not for ever."""
        end = time.monotonic() + _DRAIN_S
        while self._control.status().queued and time.monotonic() < end:
            time.sleep(0.01)

    def _alive(self) -> bool:
        try:
            self._control.status()
        except RelayError:
            return False
        return True

    def _start_relay(self, quality: Quality) -> None:
        """Start it; nothing comes to it before ``_attach``."""
        topology = self._topology
        pairs = [f"{host.port.near}:{host.port.outer}" for host in topology.hosts]
        argv = [
            *(sys.executable, "-m", relay.__name__),
            *("--control", str(topology.paths.socket(RELAY_NAME))),
            *pairs,
        ]
        log = topology.paths.log(RELAY_NAME)
        daemon = shell.Daemon(shell.inside(topology.netns, argv), log)
        Deadline(START_S).wait(
            lambda: self._came_up(daemon), lambda: f"the relay answers\n{shell.tail(log)}"
        )
        self._control.set(quality)

    def _came_up(self, daemon: shell.Daemon) -> bool:
        if daemon.exit_code() is not None:
            log = self._topology.paths.log(RELAY_NAME)
            raise LabError(f"the relay ended at once\n{shell.tail(log)}")
        return self._alive()

    def _attach(self, *, relayed: bool) -> None:
        script = attach_script(self._topology, relayed=relayed)
        self._ip(["ip", "-n", self._topology.netns, "-batch", "-"], script)

    def _inside(self, netns: str, command: str) -> None:
        self._run(shell.inside(netns, command.split()))

    def _ip(self, argv: list[str], script: str) -> None:
        self._run(argv, script)

    def _run(self, argv: list[str], text: str = "") -> None:
        shell.run(argv, text=text, keep=self._keep)


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
