"""The same peers in a device of their own, everything installed by hand: what WireGuard costs."""

import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from crowd.members import PORT, Member
from pyroute2 import netns as namespaces

from wgmap.addresses import Endpoint, IPAddress, host_prefix
from wgmap.wg.device import DeviceConfig, PeerConfig
from wgmap.wg.keys import PrivateKey
from wgmap.wg.userspace import UserspaceBackend
from wgmap_chaos.lab import shell
from wgmap_chaos.lab.inventory import AgentEntry

EIDS = ipaddress.IPv4Network("10.67.128.0/17")
OWN_PORT = 51999
MTU = 1420
_BATCH = 500


@dataclass(frozen=True, slots=True)
class ByHand:
    """A device with all members."""

    pid: int

    @staticmethod
    def eid(member: Member) -> ipaddress.IPv4Address:
        """Return the address by which a member is reached through it."""
        return EIDS[member.number]


@asynccontextmanager
async def by_hand(agent: AgentEntry, whom: list[Member]) -> AsyncIterator[ByHand]:
    """Make the device in an agent's namespace, beside its own."""
    backend = UserspaceBackend()
    name = agent.data_interface.removesuffix("-dat") + "-hnd"
    namespaces.pushns(agent.netns)
    try:
        device = await backend.open(name)
    finally:
        namespaces.popns()
    try:
        await device.configure(DeviceConfig(PrivateKey.generate(), OWN_PORT))
        for start in range(0, len(whom), _BATCH):
            peers = tuple(_peer(one) for one in whom[start : start + _BATCH])
            await device.configure(DeviceConfig(peers=peers))
        _set_up(agent, name)
        yield ByHand(device.carrier_pid)
    finally:
        await device.close()
        namespaces.pushns(agent.netns)
        try:
            await backend.remove(name)
        finally:
            namespaces.popns()


def _peer(member: Member) -> PeerConfig:
    eid: IPAddress = ByHand.eid(member)
    return PeerConfig(member.data_key.public, Endpoint(member.place, PORT), (host_prefix(eid),))


def _set_up(agent: AgentEntry, name: str) -> None:
    lines = [
        f"link set dev {name} mtu {MTU} addrgenmode none up",
        f"route add {EIDS} dev {name} src {agent.eids[0]}",
    ]
    shell.run(["ip", "-n", agent.netns, "-batch", "-"], text="\n".join(lines) + "\n")
