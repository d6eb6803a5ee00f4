"""The executor: order, one request an action, failures told, nothing else stopped."""

import errno
import ipaddress
import struct
from collections.abc import Awaitable, Sequence
from typing import Any

import pytest

from support.memory_device import MemoryDevice
from wgmap.addresses import Endpoint, IPAddress, IPNetwork
from wgmap.wg.device import DeviceConfig, DeviceError, PeerConfig
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.types import (
    Action,
    AddRoutes,
    ConfigurePeers,
    ContactStep,
    DeleteRoutes,
    Inject,
    ReadPeers,
    RefreshEndpoints,
    Refusal,
    Refuse,
    Save,
    SavedState,
    Send,
    Stamp,
    Tunnel,
)
from wgmap_agent.runner import icmp
from wgmap_agent.runner.executor import PEERS_A_REQUEST, Executor, Hands, SourceFinder
from wgmap_agent.runner.injector import Injected

ENDPOINT = Endpoint(ipaddress.ip_address("192.0.2.7"), 51820)
OWN = ipaddress.ip_network("10.66.1.1/32")
FAR = ipaddress.ip_network("10.66.2.0/24")


def key(number: int) -> PublicKey:
    return PublicKey(struct.pack("!32x")[:28] + struct.pack("!I", number))


def packet(size: int = 40, flags: int = 0x4000) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, size, 1, flags, 63, 17, 0)
    return head + OWN.network_address.packed + bytes((10, 66, 2, 1)) + b"x" * (size - 20)


class World:
    """Everything that an executor touches, remembering what happened in which order."""

    def __init__(self, mtu: int = 1420) -> None:
        self.data = MemoryDevice("data")
        self.control = MemoryDevice("control")
        self.routes: set[IPNetwork] = set()
        self.happened: list[Any] = []
        self.failures: list[tuple[Action, Exception]] = []
        self.unreachable_servers: set[str] = set()
        self.executor = Executor(
            Hands(
                devices={Tunnel.DATA: self.data, Tunnel.CONTROL: self.control},
                routes=self,
                control=ServersOf(self),
                data=PacketsOf(self, "out", mtu),
                local=PacketsOf(self, "local", 65535),
                source_for=SourceFinder((OWN,)),
                read_peers=self.happened.append,
                save=self.happened.append,
                save_cache=self.happened.append,
                stamp=self.happened.append,
                use_servers=self.happened.append,
                data_mtu=mtu,
            ),
            lambda action, error: self.failures.append((action, error)),
        )

    async def add(self, prefixes: Sequence[IPNetwork]) -> None:
        self.happened.append(("routes", len(self.data.peers)))
        self.routes |= set(prefixes)

    def begin_add(self, prefixes: Sequence[IPNetwork]) -> Awaitable[None] | None:
        return self.add(prefixes)

    async def delete(self, prefixes: Sequence[IPNetwork]) -> None:
        self.routes -= set(prefixes)


class ServersOf:
    def __init__(self, world: World) -> None:
        self.world = world

    def send(self, server: str, datagram: bytes) -> None:
        if server in self.world.unreachable_servers:
            raise OSError(errno.ENETUNREACH, "no way")
        self.world.happened.append((server, datagram))


class PacketsOf:
    def __init__(self, world: World, where: str, mtu: int) -> None:
        self.world, self.where, self.mtu = world, where, mtu

    def send(self, packets: tuple[bytes, ...]) -> Injected:
        result = Injected()
        for one in packets:
            if len(one) > self.mtu:
                result.too_big.append(one)
                continue
            result.sent += 1
            self.world.happened.append((self.where, one))
        return result


async def test_actions_are_done_in_their_order() -> None:
    world = World()
    add = PeerConfig(key(1), endpoint=ENDPOINT, allowed_ips=(FAR,))
    await world.executor.execute(
        [
            ConfigurePeers(Tunnel.DATA, (add,)),
            AddRoutes((FAR,)),
            Inject((packet(),)),
            Send("ms1", b"hello"),
            ReadPeers(Tunnel.DATA),
            Save(SavedState(5)),
        ]
    )
    assert world.happened == [
        ("routes", 1),
        ("out", packet()),
        ("ms1", b"hello"),
        ReadPeers(Tunnel.DATA),
        SavedState(5),
    ]
    assert world.routes == {FAR}
    assert world.data.log == [DeviceConfig(peers=(add,))]
    await world.executor.execute([DeleteRoutes((FAR,))])
    assert world.routes == set()
    assert world.failures == []


@pytest.mark.parametrize("slow_device", [False, True])
async def test_begun_or_executed_the_same_happens_in_the_same_order(slow_device: bool) -> None:
    add = PeerConfig(key(1), endpoint=ENDPOINT, allowed_ips=(FAR,))
    stamp = Stamp((FAR.network_address,), ContactStep.ASKED)
    prompt: list[Action] = [Send("ms1", b"x"), Inject((packet(),)), stamp, ReadPeers(Tunnel.DATA)]
    slow: list[Action] = [ConfigurePeers(Tunnel.DATA, (add,)), AddRoutes((FAR,)), Send("ms2", b"y")]
    whole, begun = World(), World()
    await whole.executor.execute([*prompt, *slow])
    begun.data.slow = slow_device
    rest = begun.executor.begin([*prompt, *slow])
    assert rest == (slow if slow_device else slow[1:])
    assert len(begun.happened) == len(prompt)
    await begun.executor.execute(rest)
    assert begun.happened == whole.happened
    assert begun.failures == []
    assert (begun.data.log, begun.routes) == (whole.data.log, whole.routes)


async def test_a_refused_action_is_told_and_the_rest_goes_on() -> None:
    world = World()
    world.data.refuses = errno.EINVAL
    refused = ConfigurePeers(Tunnel.DATA, (PeerConfig(key(1)),))
    await world.executor.execute([refused, RefreshEndpoints(Tunnel.DATA), Send("ms1", b"x")])
    assert [action for action, _ in world.failures] == [refused, RefreshEndpoints(Tunnel.DATA)]
    assert isinstance(world.failures[0][1], DeviceError)
    assert world.happened == [("ms1", b"x")]
    assert world.executor.counters["execute.failed"] == 2


async def test_a_datagram_that_cannot_go_out_is_a_lost_one() -> None:
    world = World()
    world.unreachable_servers = {"ms1"}
    await world.executor.execute([Send("ms1", b"x"), Send("ms2", b"x")])
    assert world.happened == [("ms2", b"x")]
    assert world.failures == []
    assert world.executor.counters["control.send_failed"] == 1


async def test_every_current_endpoint_is_set_again_in_bounded_requests() -> None:
    world = World()
    for number in range(PEERS_A_REQUEST + 1):
        await world.data.configure(DeviceConfig(peers=(PeerConfig(key(number), ENDPOINT),)))
    await world.data.configure(DeviceConfig(peers=(PeerConfig(key(9999)),)))
    before = dict(world.data.peers)
    world.data.log.clear()
    await world.executor.execute([RefreshEndpoints(Tunnel.DATA)])
    assert [len(config.peers) for config in world.data.log] == [PEERS_A_REQUEST, 1]
    assert all(
        peer.endpoint == ENDPOINT and peer.update_only and peer.allowed_ips is None
        for config in world.data.log
        for peer in config.peers
    )
    assert world.data.peers == before


async def test_senders_are_told_from_the_own_eid() -> None:
    world = World()
    await world.executor.execute([Refuse(packet(), Refusal.UNREACHABLE)])
    [(where, answer)] = world.happened
    about = icmp.header(answer)
    assert where == "local"
    assert about == icmp.Header(OWN.network_address, OWN.network_address)
    assert answer[20:22] == b"\x03\x01"


async def test_a_packet_over_the_mtu_is_answered_with_the_mtu() -> None:
    world = World(mtu=100)
    await world.executor.execute([Inject((packet(200), packet(50)))])
    assert world.happened[0] == ("out", packet(50))
    _, answer = world.happened[1]
    assert answer[20:22] == b"\x03\x04"
    assert struct.unpack_from("!H", answer, 26) == (100,)
    assert world.executor.counters["inject.sent"] == 1


async def test_what_must_not_be_answered_is_counted() -> None:
    world = World()
    await world.executor.execute([Refuse(packet(flags=1), Refusal.UNREACHABLE)])
    await world.executor.execute([Refuse(b"nonsense", Refusal.UNREACHABLE)])
    assert world.happened == []
    assert world.executor.counters["refuse.silent"] == 2


@pytest.mark.parametrize(
    ("own", "towards", "source"),
    [
        ((OWN,), "10.66.9.9", "10.66.1.1"),
        ((ipaddress.ip_network("10.66.1.0/24"),), "127.0.0.9", "127.0.0.1"),
        ((OWN,), "::1", "::1"),
    ],
)
def test_the_source_of_errors(own: tuple[IPNetwork, ...], towards: str, source: str) -> None:
    found: IPAddress | None = SourceFinder(own)(ipaddress.ip_address(towards))
    assert str(found) == source
