"""The least that an on-demand first contact can take here: the same hops, and nothing decided.

Three small programs stand for the two agents and a map server. They block on what they wait for
and write bytes that were made beforehand: a packet leaves a TUN, a question of the usual size goes
through the control tunnel, answer and push come back through two, each side hands its WireGuard
one peer, and the packet is injected. What ours takes beside that is its own work.
"""

import ipaddress
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass

from pyroute2 import netns as namespaces

from wgmap.addresses import Endpoint, IPAddress, host_prefix
from wgmap.wg import uapi
from wgmap.wg.device import DeviceConfig, PeerConfig
from wgmap.wg.keys import PrivateKey
from wgmap.wg.userspace import UserspaceBackend, UserspaceDevice, socket_path
from wgmap_agent.runner import tun
from wgmap_chaos.flow import socket_in
from wgmap_chaos.lab import shell
from wgmap_chaos.lab.inventory import AgentEntry, HostEntry, ServerEntry

PORT, LISP_LIKE = 51998, 4399
MTU = 1420
QUESTION, REPLY, PUSH = bytes(116), bytes(246), bytes(246)  # of one host in each family
_ETH_P_IP = 0x0800


@dataclass(frozen=True, slots=True)
class _End:
    agent: AgentEntry
    device: UserspaceDevice
    key: PrivateKey
    eid: IPAddress
    tun: str

    def as_peer(self) -> PeerConfig:
        endpoint = Endpoint(self.agent.underlay[0], PORT)
        return PeerConfig(self.key.public, endpoint, (host_prefix(self.eid),))


class Bound:
    """The first agent asks, the second one is asked; IPv4."""

    def __init__(self) -> None:
        self._backend = UserspaceBackend()
        self._ends: list[_End] = []
        self._children: list[int] = []
        self._tun: tun.Tun | None = None

    async def open(self, server: ServerEntry, agents: tuple[AgentEntry, ...]) -> None:
        """Make the ends, and start the three programs."""
        for number, agent in enumerate(agents, start=1):
            stem = agent.data_interface.removesuffix("-dat")
            namespaces.pushns(agent.netns)
            try:
                device = await self._backend.open(f"{stem}-bnd")
            finally:
                namespaces.popns()
            eid = ipaddress.ip_address(f"10.68.{number}.1")
            self._ends.append(_End(agent, device, PrivateKey.generate(), eid, f"{stem}-btn"))
        asking, asked = self._ends
        for end in self._ends:
            await end.device.configure(DeviceConfig(end.key, PORT))
        self._tun = self._set_up(asking, asked)
        control = [_control(one) for one in (asking.agent, asked.agent, server)]
        self._start(_asks(self._tun.fileno(), control[0], server, _uapi(asking),
                          _set(asked), _packets(asking)))  # fmt: skip
        self._start(_is_told(control[1], _uapi(asked), _set(asking)))
        self._start(_answers(control[2], asked.agent))

    async def reset(self) -> None:
        """Make strangers of them."""
        asking, asked = self._ends
        for end, other in ((asking, asked), (asked, asking)):
            gone = PeerConfig(other.key.public, remove=True)
            await end.device.configure(DeviceConfig(peers=(gone,)))

    def pids(self) -> list[int]:
        """Return every process that takes part."""
        return [*self._children, *(end.device.carrier_pid for end in self._ends)]

    @property
    def eid(self) -> IPAddress:
        """The address that is asked for."""
        return self._ends[1].eid

    async def close(self) -> None:
        """End the programs and remove the interfaces."""
        self._end()
        if self._tun is not None:
            self._tun.close()
        for end in self._ends:
            await end.device.close()
            namespaces.pushns(end.agent.netns)
            try:
                await self._backend.remove(end.device.name)
                tun.remove(end.tun)
            finally:
                namespaces.popns()

    def _end(self) -> None:
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def _start(self, loop: Callable[[], None]) -> None:
        pid = os.fork()
        if pid == 0:
            try:
                while True:
                    loop()
            finally:
                os._exit(1)
        self._children.append(pid)

    def _set_up(self, asking: _End, asked: _End) -> tun.Tun:
        namespaces.pushns(asking.agent.netns)
        try:
            made = tun.Tun(asking.tun)
        finally:
            namespaces.popns()
        os.set_blocking(made.fileno(), True)
        for end, lines in (
            (asking, [f"link set dev {asking.tun} mtu {MTU} addrgenmode none up",
                      f"addr add {asking.eid}/32 dev {asking.tun}",
                      f"route add {asked.eid}/32 dev {asking.tun} src {asking.eid}"]),
            (asked, [f"addr add {asked.eid}/32 dev {asked.device.name}",
                     f"route add {asking.eid}/32 dev {asked.device.name} src {asked.eid}"]),
        ):  # fmt: skip
            up = f"link set dev {end.device.name} mtu {MTU} addrgenmode none up"
            script = "\n".join([up, *lines]) + "\n"
            shell.run(["ip", "-n", end.agent.netns, "-batch", "-"], text=script)
        return made


def _control(host: HostEntry) -> socket.socket:
    opened = socket_in(host.netns, socket.AF_INET6, socket.SOCK_DGRAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, host.control_interface.encode())
    opened.bind((str(host.control), LISP_LIKE))
    opened.setblocking(True)
    return opened


def _packets(end: _End) -> Callable[[bytes], None]:
    opened = socket_in(end.agent.netns, socket.AF_PACKET, socket.SOCK_DGRAM)
    where = (end.device.name, _ETH_P_IP)

    def inject(packet: bytes) -> None:
        opened.sendto(packet, where)

    return inject


def _uapi(end: _End) -> socket.socket:
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    opened.connect(str(socket_path(end.device.name)))
    return opened


def _set(peer: _End) -> bytes:
    return uapi.encode(DeviceConfig(peers=(peer.as_peer(),)))


def _asks(
    packets: int,
    control: socket.socket,
    server: ServerEntry,
    device: socket.socket,
    request: bytes,
    inject: Callable[[bytes], None],
) -> Callable[[], None]:
    where = (str(server.control), LISP_LIKE)

    def contact() -> None:
        packet = os.read(packets, 2048)
        control.sendto(QUESTION, where)
        control.recv(2048)
        device.send(request)
        device.recv(64)
        inject(packet)

    return contact


def _is_told(control: socket.socket, device: socket.socket, request: bytes) -> Callable[[], None]:
    def told() -> None:
        control.recv(2048)
        device.send(request)
        device.recv(64)

    return told


def _answers(control: socket.socket, asked: AgentEntry) -> Callable[[], None]:
    push_to = (str(asked.control), LISP_LIKE)

    def answer() -> None:
        _, source = control.recvfrom(2048)
        control.sendto(PUSH, push_to)  # as a map server does
        control.sendto(REPLY, source)

    return answer
