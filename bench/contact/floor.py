"""The floor: WireGuard with everything installed beforehand, and a fresh handshake each time.

One more wireguard-go in the namespace of each agent, on the same underlay: peer, endpoint,
AllowedIPs and route are there on both sides. ``reset`` removes and adds the peers, which drops
sessions and handshake state and nothing else.
"""

import ipaddress
from dataclasses import dataclass

from pyroute2 import netns as namespaces

from wgmap.addresses import Endpoint, IPAddress, host_prefix
from wgmap.wg.device import DeviceConfig, PeerConfig
from wgmap.wg.keys import PrivateKey
from wgmap.wg.userspace import UserspaceBackend, UserspaceDevice
from wgmap_chaos.lab import shell
from wgmap_chaos.lab.inventory import AgentEntry

PORT = 51999
MTU = 1420


@dataclass(frozen=True, slots=True)
class _End:
    agent: AgentEntry
    device: UserspaceDevice
    key: PrivateKey
    eids: tuple[IPAddress, IPAddress]

    def as_peer(self) -> PeerConfig:
        return PeerConfig(
            self.key.public,
            Endpoint(self.agent.underlay[0], PORT),
            tuple(host_prefix(eid) for eid in self.eids),
        )


class Floor:
    """Two preconfigured ends; ``eid`` is the address of an end in a family."""

    def __init__(self) -> None:
        self._backend = UserspaceBackend()
        self._ends: list[_End] = []

    async def open(self, agents: tuple[AgentEntry, ...]) -> None:
        """Make an end in the namespace of each of two agents."""
        for number, agent in enumerate(agents, start=1):
            eids = (
                ipaddress.ip_address(f"10.67.{number}.1"),
                ipaddress.ip_address(f"fd67::{number}"),
            )
            name = agent.data_interface.removesuffix("-dat") + "-flr"
            namespaces.pushns(agent.netns)
            try:
                device = await self._backend.open(name)
            finally:
                namespaces.popns()
            self._ends.append(_End(agent, device, PrivateKey.generate(), eids))
        for end, other in self._pairs():
            config = DeviceConfig(end.key, PORT, peers=(other.as_peer(),))
            await end.device.configure(config)
            _set_up(end, other)

    async def reset(self) -> None:
        """Make both ends strangers that know everything of each other."""
        for end, other in self._pairs():
            gone = PeerConfig(other.key.public, remove=True)
            await end.device.configure(DeviceConfig(peers=(gone, other.as_peer())))

    def pids(self) -> list[int]:
        """Return the processes that carry the ends."""
        return [end.device.carrier_pid for end in self._ends]

    def eid(self, agent: AgentEntry, family: int) -> IPAddress:
        """Return the address that an agent's end has."""
        end = next(one for one in self._ends if one.agent == agent)
        return end.eids[0 if family == 4 else 1]

    async def close(self) -> None:
        """End the processes; interfaces and routes go with them."""
        for end in self._ends:
            await end.device.close()
            namespaces.pushns(end.agent.netns)
            try:
                await self._backend.remove(end.device.name)
            finally:
                namespaces.popns()

    def _pairs(self) -> list[tuple[_End, _End]]:
        one, other = self._ends
        return [(one, other), (other, one)]


def _set_up(end: _End, other: _End) -> None:
    name = end.device.name
    lines = [f"link set dev {name} mtu {MTU} addrgenmode none up"]
    for own, far in zip(end.eids, other.eids, strict=True):
        own_net, far_net = host_prefix(own), host_prefix(far)
        lines += [
            f"addr add {own_net} dev {name}" + (" nodad" if own.version == 6 else ""),
            f"route add {far_net} dev {name} src {own}",
        ]
    script = "\n".join(lines) + "\n"
    argv = ["ip", "-n", end.agent.netns, "-batch", "-"]
    shell.run(argv, text=script)
