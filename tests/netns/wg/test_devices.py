"""What every WireGuard backend must do, on real devices.

[l: wg 10.5.0.1] 192.0.2.1 ---- veth ---- 192.0.2.2 [r: wg 10.5.0.2]
"""

import errno
import ipaddress
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from support.netns import Namespace, Netbed, netbed, wait_until
from wgmap.addresses import Endpoint
from wgmap.wg.device import (
    Backend,
    Device,
    DeviceConfig,
    DeviceError,
    PeerConfig,
)
from wgmap.wg.keys import PrivateKey, PublicKey
from wgmap.wg.userspace import exists

pytestmark = pytest.mark.netns

LEFT, RIGHT = ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("192.0.2.2")
PORT = 51820
NET_A = ipaddress.ip_network("10.5.0.0/25")
NET_B = ipaddress.ip_network("fd55::/64")


@dataclass
class End:
    """A namespace with a WireGuard device."""

    namespace: Namespace
    device: Device
    key: PrivateKey = field(default_factory=PrivateKey.generate)

    async def listen(self, address: str) -> None:
        await self.device.configure(DeviceConfig(private_key=self.key, listen_port=PORT))
        self.namespace.ip("addr", "add", address, "dev", self.device.name)
        self.namespace.ip("link", "set", self.device.name, "up", "mtu", "1420")

    def reaches(self, address: str) -> bool:
        return "1 received" in self.namespace.run("ping", "-c1", "-W3", address, check=False)


@dataclass
class Pair:
    """Two ends that can reach each other below the tunnel."""

    bed: Netbed
    backend: Backend
    left: End
    right: End

    async def tunnel(self) -> None:
        for end, address in ((self.left, "10.5.0.1/24"), (self.right, "10.5.0.2/24")):
            await end.listen(address)
        await self.left.device.configure(DeviceConfig(peers=(self.right_peer(),)))
        await self.right.device.configure(DeviceConfig(peers=(self.left_peer(),)))

    def right_peer(self, keepalive_s: int | None = None) -> PeerConfig:
        allowed = (ipaddress.ip_network("10.5.0.2/32"),)
        return PeerConfig(self.right.key.public, Endpoint(RIGHT, PORT), allowed, keepalive_s)

    def left_peer(self) -> PeerConfig:
        allowed = (ipaddress.ip_network("10.5.0.1/32"),)
        return PeerConfig(self.left.key.public, Endpoint(LEFT, PORT), allowed)


@pytest_asyncio.fixture
async def pair(backend: Backend) -> AsyncIterator[Pair]:
    with netbed("wg") as bed:
        left, right = bed.namespace("l"), bed.namespace("r")
        bed.veth(left, right, [f"{LEFT}/24"], [f"{RIGHT}/24"])
        ends = []
        for namespace, label in ((left, "a"), (right, "b")):
            with namespace.entered():
                ends.append(End(namespace, await backend.open(bed.name(label))))
        yield Pair(bed, backend, *ends)
        for end in ends:
            await end.device.close()


def stranger() -> PublicKey:
    return PrivateKey.generate().public


async def test_a_new_device_is_empty(pair: Pair) -> None:
    state = await pair.left.device.read()
    assert (state.name, state.public_key, state.peers) == (pair.left.device.name, None, {})


async def test_a_tunnel_stands(pair: Pair) -> None:
    await pair.tunnel()
    assert pair.left.reaches("10.5.0.2")
    state = await pair.left.device.read()
    assert state.public_key == pair.left.key.public
    assert state.listen_port == PORT
    peer = state.peers[pair.right.key.public]
    assert peer.endpoint == Endpoint(RIGHT, PORT)
    assert peer.allowed_ips == (ipaddress.ip_network("10.5.0.2/32"),)
    assert peer.last_handshake is not None
    assert peer.last_handshake > 1e9
    assert min(peer.rx_bytes, peer.tx_bytes) > 0


async def test_a_look_says_of_each_peer_what_a_reading_says(pair: Pair) -> None:
    await pair.tunnel()
    assert pair.left.reaches("10.5.0.2")
    await pair.left.device.configure(DeviceConfig(peers=(PeerConfig(key := stranger()),)))
    look = await pair.left.device.look()
    state = await pair.left.device.read()
    other = pair.right.key.public
    assert look.peer(other) == state.peers[other]
    assert look.handshake_s(other) == int(state.peers[other].last_handshake or 0) > 1e9
    assert look.peer(key) == state.peers[key]
    assert look.handshake_s(key) == 0
    assert look.peer(stranger()) is None
    assert look.handshake_s(stranger()) == 0


async def test_a_difference_leaves_the_rest_alone(pair: Pair) -> None:
    await pair.tunnel()
    assert pair.left.reaches("10.5.0.2")
    before = await pair.left.device.read()
    key = stranger()
    await pair.left.device.configure(
        DeviceConfig(peers=(PeerConfig(key, allowed_ips=(NET_A, NET_B), keepalive_s=0),))
    )
    await pair.left.device.configure(DeviceConfig(peers=(PeerConfig(key, keepalive_s=7),)))
    state = await pair.left.device.read()
    assert set(state.peers[key].allowed_ips) == {NET_A, NET_B}
    assert state.peers[key].keepalive_s == 7
    assert state.peers[key].endpoint is None
    tunnel = pair.right.key.public
    assert state.peers[tunnel].last_handshake == before.peers[tunnel].last_handshake
    assert (state.public_key, state.listen_port) == (before.public_key, before.listen_port)


async def _apply(device: Device, config: DeviceConfig) -> None:
    rest = device.begin(config)
    if rest is not None:  # on a busy machine it takes longer
        await rest


async def test_a_change_begun_is_a_change_applied(pair: Pair) -> None:
    device = pair.left.device
    for keepalive_s in (5, 6):
        await _apply(device, DeviceConfig(peers=(pair.right_peer(keepalive_s),)))
        [peer] = (await device.read()).peers.values()
        assert peer.keepalive_s == keepalive_s


async def test_a_change_begun_is_refused_with_its_errno(pair: Pair) -> None:
    with pair.left.namespace.entered():
        await pair.backend.remove(pair.left.device.name)
    with pytest.raises(DeviceError) as caught:
        await _apply(pair.left.device, DeviceConfig(peers=(pair.right_peer(),)))
    assert caught.value.errno == errno.ENODEV


async def test_allowed_ips_move_to_the_peer_named_last(pair: Pair) -> None:
    first, second = stranger(), stranger()
    await pair.left.device.configure(
        DeviceConfig(peers=(PeerConfig(first, allowed_ips=(NET_A, NET_B)), PeerConfig(second)))
    )
    await pair.left.device.configure(
        DeviceConfig(peers=(PeerConfig(second, allowed_ips=(NET_A,)),))
    )
    state = await pair.left.device.read()
    assert state.peers[first].allowed_ips == (NET_B,)
    assert state.peers[second].allowed_ips == (NET_A,)
    await pair.left.device.configure(DeviceConfig(peers=(PeerConfig(first, allowed_ips=()),)))
    assert (await pair.left.device.read()).peers[first].allowed_ips == ()


async def test_update_only_makes_no_peer(pair: Pair) -> None:
    key = stranger()
    update = DeviceConfig(peers=(PeerConfig(key, keepalive_s=9, update_only=True),))
    await pair.left.device.configure(update)
    assert (await pair.left.device.read()).peers == {}
    await pair.left.device.configure(DeviceConfig(peers=(PeerConfig(key),)))
    await pair.left.device.configure(update)
    assert (await pair.left.device.read()).peers[key].keepalive_s == 9


async def test_removing_what_is_not_there_is_no_error(pair: Pair) -> None:
    await pair.left.device.configure(DeviceConfig(peers=(PeerConfig(stranger(), remove=True),)))
    assert (await pair.left.device.read()).peers == {}


async def test_the_kick_drops_the_handshake_in_one_request(pair: Pair) -> None:
    await pair.tunnel()
    assert pair.left.reaches("10.5.0.2")
    key = pair.right.key.public
    handshake = (await pair.left.device.read()).peers[key].last_handshake or 0.0
    # A responder drops an initiation that comes within 20 ms of the last one (flood limit).
    wait_until(lambda: time.clock_gettime(time.CLOCK_REALTIME) > handshake + 0.1, "100 ms")
    kick = (PeerConfig(key, remove=True), pair.right_peer())
    await pair.left.device.configure(DeviceConfig(peers=kick))
    peer = (await pair.left.device.read()).peers[key]
    assert (peer.last_handshake, peer.rx_bytes) == (None, 0)
    assert peer.endpoint == Endpoint(RIGHT, PORT)
    assert pair.left.reaches("10.5.0.2")


async def test_many_peers_in_one_configuration(pair: Pair) -> None:
    wanted = {
        PublicKey(number.to_bytes(32, "big")): (ipaddress.ip_network((0x0A640000 + number, 32)),)
        for number in range(1, 1201)
    }
    await pair.left.device.configure(
        DeviceConfig(peers=tuple(PeerConfig(key, allowed_ips=nets) for key, nets in wanted.items()))
    )
    peers = (await pair.left.device.read()).peers
    assert {key: peer.allowed_ips for key, peer in peers.items()} == wanted
    await pair.left.device.configure(
        DeviceConfig(peers=tuple(PeerConfig(key, remove=True) for key in wanted))
    )
    assert (await pair.left.device.read()).peers == {}


async def test_opening_again_adopts_the_interface_as_it_is(pair: Pair) -> None:
    await pair.tunnel()
    assert pair.left.reaches("10.5.0.2")
    before = await pair.left.device.read()
    with pair.left.namespace.entered():
        again = await pair.backend.open(pair.left.device.name)
    assert (await again.read()).peers.keys() == before.peers.keys()
    await again.close()
    assert pair.left.reaches("10.5.0.2")


async def test_remove_leaves_nothing(pair: Pair) -> None:
    name = pair.left.device.name
    await pair.tunnel()
    with pair.left.namespace.entered():
        assert exists(name)
        await pair.backend.remove(name)
        assert not exists(name)
        await pair.backend.remove(name)
    with pytest.raises(DeviceError) as caught:
        await pair.left.device.read()
    assert caught.value.errno == errno.ENODEV


async def test_a_taken_port_is_refused_with_its_errno(pair: Pair) -> None:
    pair.left.namespace.ip("link", "set", pair.left.device.name, "up")
    with pair.left.namespace.entered():
        other = await pair.backend.open(pair.bed.name("c"))
    pair.left.namespace.ip("link", "set", other.name, "up")
    await pair.left.device.configure(DeviceConfig(pair.left.key, PORT))
    with pytest.raises(DeviceError) as caught:
        await other.configure(DeviceConfig(PrivateKey.generate(), PORT))
    assert caught.value.errno == errno.EADDRINUSE
    await other.close()
