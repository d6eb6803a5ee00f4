"""Handshakes are heard beside WireGuard, whoever sends them, and nothing else is."""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.eventually import eventually
from support.netns import PATIENCE, Namespace, netbed
from wgmap import clock
from wgmap.addresses import Endpoint, IPAddress
from wgmap.wg.device import Backend, Device, DeviceConfig, PeerConfig
from wgmap.wg.keys import PrivateKey
from wgmap_agent.engine.packets import summed
from wgmap_agent.runner.injector import Sender
from wgmap_agent.runner.overheard import RATE, TURN_S, Handshake, Overheard

pytestmark = pytest.mark.netns

PORT, SOURCE_PORT = 51820, 40000
INITIATION = b"\x01\0\0\0" + bytes(144)
RESPONSE = b"\x02\0\0\0" + bytes(88)
OTHERS = (
    *(b"\x04\0\0\0" + bytes(144), b"\x04\0\0\0" + bytes(88), b""),
    *(INITIATION + b"\0", INITIATION[:92], RESPONSE + b"\0", RESPONSE + bytes(56)),
)
LOCAL, REMOTE = ("192.0.2.1", "2001:db8::1"), ("192.0.2.2", "2001:db8::2")


@contextmanager
def ears_and_senders() -> Iterator[tuple[Overheard, list[socket.socket]]]:
    with netbed("fc") as bed:
        near, far = bed.namespace("n"), bed.namespace("f")
        ends = [(f"{v4}/24", f"{v6}/64") for v4, v6 in (LOCAL, REMOTE)]
        bed.veth(near, far, ends[0], ends[1])
        with far.entered():
            senders = [
                socket.socket(family, socket.SOCK_DGRAM)
                for family in (socket.AF_INET, socket.AF_INET6)
            ]
        for sender, address in zip(senders, REMOTE, strict=True):
            sender.bind((address, SOURCE_PORT))
        with near.entered():
            overheard = Overheard(PORT)
        with overheard, senders[0], senders[1]:
            yield overheard, senders


@pytest.mark.parametrize("message", [INITIATION, RESPONSE])
async def test_handshakes_are_heard_and_nothing_else(message: bytes) -> None:
    with ears_and_senders() as (overheard, senders):
        heard: list[Handshake] = []
        overheard.start(heard.append)
        for sender, local, remote in zip(senders, LOCAL, REMOTE, strict=True):
            for data in OTHERS:
                sender.sendto(data, (local, PORT))
            sender.sendto(message, (local, PORT + 1))
            sender.sendto(message, (local, PORT))
            await eventually(lambda: len(heard) > 0)
            assert heard[0].is_response == (message is RESPONSE)
            assert heard[0].source == Endpoint(ipaddress.ip_address(remote), SOURCE_PORT)
            assert abs(clock.now() - heard[0].at) < 1
            assert len(heard) == 1  # in the order of their sending: the others came before it
            heard.clear()


async def test_the_next_socket_of_its_number_is_heard_by_the_loop() -> None:
    """Closed while nothing comes: the loop must let go of it, or whoever is next waits for ever."""
    loop = asyncio.get_running_loop()
    with ears_and_senders() as (overheard, _):
        overheard.start(lambda _: None)
        numbers = {one.fileno() for one in overheard._sockets}
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            pair = [stack.enter_context(one) for one in socket.socketpair()]
            numbers -= {one.fileno() for one in pair}
            for one, other in (pair, pair[::-1]):
                one.setblocking(False)
                waiting = asyncio.create_task(loop.sock_recv(one, 1))
                await asyncio.sleep(0)
                other.send(b"x")
                assert await asyncio.wait_for(waiting, 1) == b"x"
    assert not numbers, "each number was taken by another one"


async def test_a_flood_is_read_no_faster_than_the_rate() -> None:
    with ears_and_senders() as (overheard, (sender, _)):
        heard: list[Handshake] = []
        overheard.start(heard.append)
        for _ in range(2000):
            sender.sendto(INITIATION, (LOCAL[0], PORT))
        began = clock.now()
        await eventually(lambda: len(heard) >= RATE * TURN_S)
        await asyncio.sleep(4 * TURN_S)
        assert len(heard) <= RATE * (clock.now() - began + 2 * TURN_S)
        assert len(heard) < 1000  # what does not fit into the buffer is the kernel's to drop


@pytest.mark.parametrize("family", [4, 6])
async def test_an_initiation_that_came_too_early_is_taken_when_it_is_delivered_again(
    backend: Backend, family: int
) -> None:
    """The one that was dropped completes the handshake: nobody waits for the next, 5 s later.

    The device comes up once it was heard: it could read it late, after it was told of the peer.
    """
    near, far = (ipaddress.ip_address(pair[family // 6]) for pair in (LOCAL, REMOTE))
    keys = PrivateKey.generate(), PrivateKey.generate()
    with netbed("fc") as bed:
        spaces = bed.namespace("n"), bed.namespace("f")
        ends = [(f"{v4}/24", f"{v6}/64") for v4, v6 in (LOCAL, REMOTE)]
        bed.veth(spaces[0], spaces[1], ends[0], ends[1])
        devices: list[Device] = []
        for space, label, key in zip(spaces, "ab", keys, strict=True):
            with space.entered():
                device = await backend.open(bed.name(label))
            await device.configure(DeviceConfig(key, PORT))
            devices.append(device)
        spaces[1].ip("link", "set", devices[1].name, "up")
        with spaces[0].entered():
            overheard, sender = Overheard(PORT), Sender()
        heard: list[Handshake] = []
        with overheard, sender:
            overheard.start(heard.append)
            initiator = PeerConfig(keys[0].public, Endpoint(near, PORT), (), 25)
            await eventually(lambda: _is_settled(far, spaces[1]))
            await devices[1].configure(DeviceConfig(peers=(initiator,)))
            await eventually(lambda: len(heard) > 0)
            spaces[0].ip("link", "set", devices[0].name, "up")
            known = PeerConfig(keys[1].public, Endpoint(far, PORT), ())
            await devices[0].configure(DeviceConfig(peers=(known,)))
            assert not await _stands(devices[1])
            assert sender.send((summed(heard[0].packet),)).sent == 1
            for device in devices:
                await _until_it_stands(device)
            [peer] = (await devices[0].read()).peers.values()
            assert peer.endpoint == Endpoint(far, PORT)
            # The second time it is an old one. (At once with the first it could be taken twice.)
            assert sender.send((summed(heard[0].packet),)).sent == 1
            _send(INITIATION, near, spaces[1])
            # What we deliver ourselves is not heard: what was sent behind it is the second.
            await eventually(lambda: len(heard) > 1)
            await asyncio.sleep(0.05)
            assert [one.source.port == PORT for one in heard] == [True, False]
            [after] = (await devices[0].read()).peers.values()
            assert after.rx_bytes == peer.rx_bytes
        for device in devices:
            await device.close()
        for space, device in zip(spaces, devices, strict=True):
            with space.entered():
                await backend.remove(device.name)


def _send(data: bytes, to: IPAddress, space: Namespace) -> None:
    family = socket.AF_INET if to.version == 4 else socket.AF_INET6
    with space.entered():
        sender = socket.socket(family, socket.SOCK_DGRAM)
    with sender:
        sender.sendto(data, (str(to), PORT))


def _is_settled(address: IPAddress, space: Namespace) -> bool:
    shown = space.ip("-6", "addr", "show", "tentative")
    return str(address) not in shown


async def _until_it_stands(device: Device) -> None:
    began = clock.now()
    while not await _stands(device):
        assert clock.now() - began < 3 * PATIENCE
        await asyncio.sleep(0.01)


async def _stands(device: Device) -> bool:
    [peer] = (await device.read()).peers.values()
    return peer.last_handshake is not None
