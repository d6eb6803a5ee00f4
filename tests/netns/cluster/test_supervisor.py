"""A supervisor with a real control interface.

agent ns  192.0.2.11 ---- veth ---- 192.0.2.1  server ns
agent     fd77:...:a  == WireGuard ==  fd77:...:s   port 4342, bound to the interface
"""

import ipaddress
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.netns import Namespace, Netbed, alive, netbed, wait_until
from support.supervised import DEADLINE_S, Server, wait_for
from support.tables import key, request
from wgmap.addresses import control_address
from wgmap.lisp.codec import decode
from wgmap.lisp.messages import MapReply
from wgmap.wg.keys import PrivateKey
from wgmap_cluster.supervisor import keys

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root and network namespaces"),
]
PREFIX = ipaddress.IPv6Network("fd77:676d:6170::/64")


class Site:
    """A server and an agent with a tunnel between them."""

    def __init__(self, bed: Netbed, folder: Path) -> None:
        self.bed = bed
        self.server_ns, self.agent_ns = bed.namespace("s"), bed.namespace("a")
        bed.veth(self.server_ns, self.agent_ns, ["192.0.2.1/24"], ["192.0.2.11/24"])
        self.interface, self.agent_interface = bed.name("sc"), bed.name("ac")
        state = folder / "state"
        keys.make(state)
        self.key = keys.load(state, keys.CONTROL_KEY)
        self.agent_key = PrivateKey.generate()
        self.address = str(control_address(PREFIX, self.key.public))
        self.agent_address = str(control_address(PREFIX, self.agent_key.public))
        (state / "a1").write_text(self.agent_address)
        self._start_agent(folder)
        self.server = Server(
            folder,
            f'interface = "{self.interface}"\n',
            ("ip", "netns", "exec", self.server_ns.name),
        )

    def _start_agent(self, folder: Path) -> None:
        secret = folder / "agent.key"
        secret.touch(mode=0o600)
        secret.write_text(self.agent_key.encode())
        name = self.agent_interface
        self.bed.popen(self.agent_ns, "wireguard-go", "-f", name)
        wait_until(lambda: name in self.agent_ns.ip("-br", "link"), f"{name} is there")
        wait_until(Path(f"/var/run/wireguard/{name}.sock").exists, "its socket is there")
        self.agent_ns.run("wg", "set", name, "private-key", str(secret))
        self.agent_ns.ip("addr", "add", f"{self.agent_address}/64", "dev", name, "nodad")
        self.agent_ns.ip("link", "set", name, "up")

    def join(self) -> None:
        """Make both ends know each other, as replica and agent do."""
        self.agent_ns.run(
            *("wg", "set", self.agent_interface, "peer", str(self.key.public), "remove"),
        )
        self.server_ns.run(
            *("wg", "set", self.interface, "peer", str(self.agent_key.public)),
            *("allowed-ips", f"{self.agent_address}/128"),
        )
        self.agent_ns.run(
            *("wg", "set", self.agent_interface, "peer", str(self.key.public)),
            *("allowed-ips", f"{self.address}/128", "endpoint", "192.0.2.1:51822"),
        )

    def asks(self) -> bool:
        with self.agent_ns.entered():
            sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        with sock:
            sock.bind((self.agent_address, 0))
            sock.settimeout(0.3)
            sock.sendto(request("10.66.2.1/32"), (self.address, 4342))
            try:
                reply = decode(sock.recv(4096))
            except TimeoutError:
                return False
        assert isinstance(reply, MapReply)
        return reply.records[0].locators[0].key == key("a2")

    def wireguard(self, namespace: Namespace, interface: str) -> int:
        """Return the process that carries an interface."""
        (pid,) = [
            pid
            for pid in namespace.pids()
            if f"wireguard-go\0-f\0{interface}\0" in Path(f"/proc/{pid}/cmdline").read_text()
        ]
        return pid

    def forge(self, port: int) -> socket.socket:
        """Ask from the underlay, past the tunnel, with the agent's own address as source."""
        with self.agent_ns.entered():
            sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sock.bind((self.agent_address, 0))
        sock.settimeout(0.5)
        sock.sendto(request("10.66.2.1/32"), (self.address, port))
        return sock


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with netbed("rs") as bed:
        site = Site(bed, tmp_path)
        try:
            site.server.ready()
            site.join()
            yield site
        finally:
            site.server.close()


def test_the_map_service_is_reached_through_the_tunnel_and_survives_its_interface(
    site: Site,
) -> None:
    wait_for(site.asks, "answers through the tunnel")
    before = site.server.pids()
    carrier = site.wireguard(site.server_ns, site.interface)
    os.kill(carrier, signal.SIGKILL)
    wait_for(lambda: not alive(carrier), "the interface's process ends")
    wait_for(lambda: site.interface in site.server_ns.ip("-br", "link"), "it is made anew")
    wait_for(lambda: site.address in site.server_ns.ip("-br", "addr"), "and set up")
    wait_for(lambda: "UP" in site.server_ns.ip("link", "show", site.interface), "and up")
    site.join()
    wait_for(site.asks, "answers again")
    assert site.server.pids() == before


def test_the_tunnel_outlives_the_server_and_does_not_hold_its_lock(site: Site) -> None:
    wait_for(site.asks, "answers")
    carrier = site.wireguard(site.server_ns, site.interface)
    site.server.process.terminate()
    assert site.server.process.wait(DEADLINE_S) == 0
    assert alive(carrier)
    site.server.process = site.server.start()
    site.server.told(b"STOPPING=1")  # of the former
    site.server.ready()
    wait_for(site.asks, "answers through the tunnel that stood")
    assert site.wireguard(site.server_ns, site.interface) == carrier


def test_the_underlay_does_not_reach_the_map_service(site: Site) -> None:
    wait_for(site.asks, "answers")
    site.agent_ns.ip("link", "set", site.agent_interface, "down")
    underlay = site.bed.name("v")
    site.agent_ns.ip("addr", "add", f"{site.agent_address}/128", "dev", f"{underlay}1", "nodad")
    site.server_ns.ip("addr", "add", "2001:db8::1/64", "dev", f"{underlay}0", "nodad")
    site.agent_ns.ip("addr", "add", "2001:db8::2/64", "dev", f"{underlay}1", "nodad")
    site.agent_ns.ip("route", "replace", f"{site.address}/128", "via", "2001:db8::1")
    assert "2001:db8::1" in site.agent_ns.ip("-6", "route", "get", site.address)
    with site.server_ns.entered():
        unbound = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with unbound:  # the kernel does take such packets: only the binding keeps them out
        unbound.bind((site.address, 4999))
        unbound.settimeout(DEADLINE_S)
        site.forge(4999).close()
        assert unbound.recv(4096) == request("10.66.2.1/32")
    with site.forge(4342) as forged, pytest.raises(TimeoutError):
        forged.recv(4096)
