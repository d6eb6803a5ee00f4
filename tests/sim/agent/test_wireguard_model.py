"""The model shows what was measured of WireGuard: the stalls, and what cures them.

Without this the simulation of the engine would prove nothing.
"""

import ipaddress

import pytest

from support.agent_sim.wireguard import Device, Payload
from support.agent_sim.world import Fault, World
from wgmap.addresses import Endpoint, host_prefix
from wgmap.wg.device import PeerConfig
from wgmap.wg.keys import PublicKey


class Side:
    """A host with nothing but a device, driven by hand; it answers every first packet."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.address = ipaddress.ip_address(f"10.66.{number}.1")
        self.endpoint = Endpoint(ipaddress.ip_address(f"192.0.2.{number}"), 51820)
        self.key = PublicKey(bytes([number]) * 32)
        self.received: list[tuple[bytes, float]] = []
        own = self.endpoint
        self.device = Device(world, f"h{number}", "data", self.key, lambda _: own, self._packet)
        world.bind(own, f"h{number}", self.device)

    def add(self, other: "Side", keepalive_s: int | None = None) -> None:
        allowed = (host_prefix(other.address),)
        change = PeerConfig(other.key, other.endpoint, allowed, keepalive_s)
        self.device.configure((change,))

    def kick(self, other: "Side") -> None:
        self.device.configure((PeerConfig(other.key, remove=True),))
        self.add(other)

    def send(self, other: "Side", data: bytes = b"ping") -> None:
        self.device.send(Payload(self.address, other.address, data))

    def _packet(self, payload: Payload) -> None:
        self.received.append((payload.data, self.world.now))
        if payload.data == b"ping":
            self.device.send(Payload(payload.destination, payload.source, b"pong"))

    def answered(self) -> float | None:
        return next((at for data, at in self.received if data == b"pong"), None)


def pair(delay: float) -> tuple[World, Side, Side]:
    world = World(seed=1, delay=delay)
    return world, Side(world, 1), Side(world, 2)


def first_reply(world: World, side: Side) -> float:
    assert world.run(30, lambda: side.answered() is not None), "\n".join(world.log)
    answered = side.answered()
    assert answered is not None
    return answered


@pytest.mark.parametrize("delay", [0.0, 0.002, 0.02, 0.08])
def test_one_side_initiating_takes_two_round_trips(delay: float) -> None:
    world, a, b = pair(delay)
    b.add(a)
    a.add(b)
    a.send(b)
    assert first_reply(world, a) == pytest.approx(4 * delay)


@pytest.mark.parametrize("delay", [0.002, 0.02, 0.08])
def test_two_initiations_that_cross_cost_five_seconds(delay: float) -> None:
    world, a, b = pair(delay)
    a.add(b)
    a.send(b)
    b.add(a, keepalive_s=25)
    assert first_reply(world, a) > 5


def test_an_initiation_to_a_device_that_does_not_know_the_peer_costs_five_seconds() -> None:
    world, a, b = pair(0.02)
    a.add(b)
    a.send(b)
    world.after(0.03, lambda: b.add(a))
    assert first_reply(world, a) > 5


def test_neither_a_keepalive_nor_the_endpoint_again_helps_and_the_kick_does() -> None:
    world, a, b = pair(0.02)
    a.add(b)
    a.send(b)
    world.run(0.1)
    b.add(a)
    a.add(b, keepalive_s=25)
    assert not world.run(4, lambda: a.answered() is not None)
    kicked = world.now
    a.kick(b)
    a.send(b)
    assert first_reply(world, a) - kicked == pytest.approx(0.08)


def test_a_lost_initiation_or_response_costs_five_seconds() -> None:
    for kind in ("data.init", "data.response"):
        world, a, b = pair(0.02)
        world.faults.append(Fault(kind))
        b.add(a)
        a.add(b)
        a.send(b)
        assert first_reply(world, a) > 5


def test_setting_a_keepalive_from_zero_sends_at_once() -> None:
    world, a, b = pair(0.02)
    a.add(b)
    b.add(a)
    world.run(1)
    a.add(b, keepalive_s=25)
    world.run(0.1)
    assert b.device.read().peers[a.key].last_handshake is not None


def test_staging_keeps_the_newest_128_packets() -> None:
    world, a, b = pair(0.02)
    a.add(b)
    b.add(a)
    for number in range(200):
        a.send(b, str(number).encode())
    world.run(1)
    assert [data for data, _ in b.received] == [str(n).encode() for n in range(72, 200)]


def test_an_endpoint_roams_with_an_authenticated_packet() -> None:
    world, a, b = pair(0.02)
    b.add(a)
    a.add(b)
    a.send(b)
    first_reply(world, a)
    moved = Endpoint(ipaddress.ip_address("192.0.2.77"), 51820)
    world.bind(moved, "h1", a.device)
    a.device._endpoint = lambda _: moved
    a.send(b)
    world.run(0.1)
    assert b.device.read().peers[a.key].endpoint == moved


def test_an_initiation_right_after_another_is_dropped() -> None:
    for apart, answered in ((0.01, False), (0.03, True)):
        world, a, b = pair(0.0)
        b.add(a)
        a.add(b)
        a.send(b)
        world.run(apart, lambda: False)
        a.received.clear()
        a.kick(b)
        a.send(b)
        assert world.run(1, lambda: a.answered() is not None) is answered  # noqa: B023  # runs here


def test_a_full_socket_buffer_drops_what_comes_last() -> None:
    world, a, b = pair(0.02)
    b.device.buffer = 90
    b.add(a)
    a.add(b)
    for number in range(100):
        a.send(b, str(number).encode())
    world.run(1)
    assert [data for data, _ in b.received] == [str(n).encode() for n in range(90)]


def test_an_initiation_that_comes_twice_at_once_is_taken_twice() -> None:
    world, a, b = pair(0.02)
    world.faults.append(Fault("data.init", drop=False, twice=True))
    b.add(a)
    a.add(b)
    a.send(b)
    world.run(4)
    assert sum("data.response" in line and "drops" not in line for line in world.log) == 2
    assert a.device.read().peers[b.key].last_handshake is not None
    assert b.device.read().peers[a.key].last_handshake is None
    assert not b.received


def test_an_initiation_that_comes_again_later_is_an_old_one() -> None:
    world, a, b = pair(0.02)
    seen: list[bytes] = []
    b.device.overhear = lambda _kind, _source, one: seen.append(one)
    b.add(a)
    a.add(b)
    a.send(b)
    world.run(0.03)
    b.device.redeliver(seen[0])
    assert first_reply(world, a) == pytest.approx(0.08)
