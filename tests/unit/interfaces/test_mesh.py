"""What is decided about the tunnels between servers."""

import ipaddress
from dataclasses import replace

from support.memory_device import MemoryDevice
from wgmap.addresses import Endpoint, host_prefix
from wgmap.wg.device import DeviceConfig, PeerConfig
from wgmap.wg.keys import PublicKey
from wgmap_cluster.fsm.rows import ServerRow
from wgmap_cluster.interfaces.mesh import (
    FALLBACK_S,
    FIRST_KICK_S,
    KEEPALIVE_S,
    PENDING_TICK_S,
    SILENT_S,
    TICK_S,
    MeshPlan,
    restated,
)

LOW, HIGH = PublicKey(bytes([1]) * 32), PublicKey(bytes([9]) * 32)


def server(key: PublicKey, underlay: str = "192.0.2.1") -> ServerRow:
    return ServerRow(
        mesh_key=bytes(key),
        control_key=bytes(32),
        underlay=ipaddress.ip_address(underlay).packed,
        control_port=51822,
        mesh_port=51821,
        mesh_address=ipaddress.ip_address(f"fd77:6d65::{key[0]}").packed,
        control_address=bytes(16),
    )


SERVERS = {"low": server(LOW, "192.0.2.1"), "high": server(HIGH, "192.0.2.9")}
AT_HIGH = Endpoint(ipaddress.ip_address("192.0.2.9"), 51821)
AT_LOW = Endpoint(ipaddress.ip_address("192.0.2.1"), 51821)
HIGH_NET = (host_prefix(ipaddress.ip_address("fd77:6d65::9")),)
LOW_NET = (host_prefix(ipaddress.ip_address("fd77:6d65::1")),)


class Side:
    """One server's plan on a device in memory."""

    def __init__(self, own: PublicKey, other: PublicKey, device: MemoryDevice | None = None):
        self.device = device or MemoryDevice()
        self.other = other
        self.plan = MeshPlan(own)
        self.plan.update(SERVERS)

    async def step(self, now: float) -> tuple[PeerConfig, ...]:
        changes = self.plan.step(now, await self.device.read())
        await self.device.configure(DeviceConfig(peers=changes))
        return changes

    def hear(self, at: float, rx_bytes: int) -> None:
        state = self.device.peers[self.other]
        self.device.peers[self.other] = replace(state, last_handshake=at, rx_bytes=rx_bytes)


def low() -> Side:
    return Side(LOW, HIGH)


def high() -> Side:
    return Side(HIGH, LOW)


async def test_the_lower_key_initiates_at_once() -> None:
    assert await low().step(0) == (PeerConfig(HIGH, AT_HIGH, HIGH_NET, KEEPALIVE_S),)


async def test_the_higher_key_waits_without_an_endpoint_and_then_falls_back() -> None:
    side = high()
    assert await side.step(0) == (PeerConfig(LOW, allowed_ips=LOW_NET),)
    assert side.device.peers[LOW].endpoint is None
    assert await side.step(FALLBACK_S - 0.01) == ()
    assert await side.step(FALLBACK_S) == (PeerConfig(LOW, AT_LOW, LOW_NET, KEEPALIVE_S),)
    assert await side.step(FALLBACK_S + 60) == (), "the higher key never kicks a handshake"


async def test_a_handshake_in_time_spares_the_fallback() -> None:
    side = high()
    await side.step(0)
    side.hear(at=1e9, rx_bytes=148)
    assert await side.step(0.5) == (PeerConfig(LOW, keepalive_s=KEEPALIVE_S, update_only=True),)
    assert await side.step(FALLBACK_S + 1) == ()
    assert side.plan.up("low")


async def test_the_lower_key_kicks_a_handshake_that_does_not_stand_ever_more_slowly() -> None:
    side = low()
    await side.step(0)
    kicks = []
    for tenth in range(1, 1300):
        changes = await side.step(tenth / 10)
        if changes:
            assert changes[0] == PeerConfig(HIGH, remove=True)
            assert changes[1] == PeerConfig(HIGH, AT_HIGH, HIGH_NET, KEEPALIVE_S)
            kicks.append(tenth / 10)
    assert kicks == [FIRST_KICK_S, 3.0, 7.0, 15.0, 31.0, 61.0, 91.0, 121.0]
    side.hear(at=1e9, rx_bytes=148)
    assert await side.step(130) == ()
    assert side.plan.up("high")


async def test_a_standing_tunnel_is_left_alone_while_it_is_heard() -> None:
    side = low()
    await side.step(0)
    for second in range(1, 1000):
        side.hear(at=1e9, rx_bytes=second)
        assert await side.step(second) == ()


async def test_both_make_a_peer_anew_after_180_s_of_silence_where_it_was_last() -> None:
    roamed = Endpoint(ipaddress.ip_address("198.51.100.7"), 7)
    for side in (low(), high()):
        await side.step(0)
        side.hear(at=1e9, rx_bytes=148)
        await side.step(1)
        state = side.device.peers[side.other]
        side.device.peers[side.other] = replace(state, endpoint=roamed)
        assert await side.step(SILENT_S) == ()
        removed, added = await side.step(SILENT_S + 1)
        assert removed == PeerConfig(side.other, remove=True)
        assert (added.endpoint, added.keepalive_s) == (roamed, KEEPALIVE_S)


async def test_a_restarted_daemon_touches_nothing_of_a_standing_mesh() -> None:
    first = low()
    await first.step(0)
    first.hear(at=1e9, rx_bytes=148)
    await first.step(1)
    second = Side(LOW, HIGH, first.device)
    assert await second.step(2) == ()
    assert second.plan.up("high")


async def test_the_higher_key_that_restarts_while_falling_back_goes_on_waiting() -> None:
    first = high()
    await first.step(0)
    second = Side(HIGH, LOW, first.device)
    assert await second.step(5) == ()
    assert await second.step(5 + FALLBACK_S) != ()


async def test_servers_come_move_and_go() -> None:
    side = low()
    await side.step(0)
    side.hear(at=1e9, rx_bytes=148)
    await side.step(1)
    third = PublicKey(bytes([5]) * 32)
    side.plan.update({**SERVERS, "third": server(third, "192.0.2.5")})
    (added,) = await side.step(2)
    assert added.key == third
    moved = {"low": SERVERS["low"], "high": server(HIGH, "192.0.2.99")}
    side.plan.update(moved)
    removed, corrected = await side.step(3)
    assert removed == PeerConfig(third, remove=True)
    assert corrected.endpoint == Endpoint(ipaddress.ip_address("192.0.2.99"), 51821)
    assert corrected.update_only
    assert side.plan.addresses == (ipaddress.ip_address("fd77:6d65::9"),)
    assert side.plan.up("third") is None


async def test_a_learned_endpoint_is_not_taken_back() -> None:
    side = low()
    await side.step(0)
    side.hear(at=1e9, rx_bytes=148)
    await side.step(1)
    roamed = Endpoint(ipaddress.ip_address("198.51.100.7"), 7)
    side.device.peers[HIGH] = replace(side.device.peers[HIGH], endpoint=roamed)
    side.plan.update(SERVERS)
    assert await side.step(2) == ()


async def test_what_others_did_to_a_prefix_is_put_right() -> None:
    side = low()
    await side.step(0)
    side.device.peers[HIGH] = replace(side.device.peers[HIGH], allowed_ips=())
    assert await side.step(0.1) == (PeerConfig(HIGH, None, HIGH_NET, update_only=True),)


async def test_it_looks_often_only_while_something_does_not_stand() -> None:
    side = low()
    await side.step(0)
    assert side.plan.next_step(0) == PENDING_TICK_S
    side.hear(at=1e9, rx_bytes=148)
    await side.step(1)
    assert side.plan.next_step(1) == 1 + TICK_S


async def test_restating_sets_each_known_endpoint_as_it_is() -> None:
    side = low()
    await side.step(0)
    await side.device.configure(DeviceConfig(peers=(PeerConfig(LOW),)))
    assert restated(await side.device.read()) == (PeerConfig(HIGH, AT_HIGH, update_only=True),)
