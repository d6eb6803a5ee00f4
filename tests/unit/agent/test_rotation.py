"""The data key rotates: who goes over when, and where to."""

import ipaddress
from collections.abc import Sequence

import pytest

from support.agent_values import HIGH_KEY, LOW_KEY, device_state, net, peer_state
from support.memory_device import MemoryDevice
from wgmap.addresses import Endpoint, IPNetwork
from wgmap.wg.device import DeviceConfig, PeerConfig
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.rotation import POLLS_S, SETTLE_BOTH_S, SETTLE_S, Rotation
from wgmap_agent.runner.injector import Injected
from wgmap_agent.runner.pair import Half, Pair

NEW_KEY = PublicKey(b"n" * 32)
WALL = 1_700_000_000.0
FIRST, SECOND = net("10.66.2.1/32"), net("10.66.3.1/32")


# ------------------------------------------------------------------- the side that rotates: when

STOOD = peer_state(LOW_KEY, last_handshake=WALL, rx_bytes=148 + 32)
SHOWN = peer_state(LOW_KEY, last_handshake=WALL, rx_bytes=148 + 32 + 80)
WAITING = frozenset({LOW_KEY})


def test_a_peer_goes_over_once_it_shows_that_it_has() -> None:
    rotation = Rotation(600.0)
    states = (peer_state(LOW_KEY), STOOD, SHOWN)
    verdicts = [
        rotation.judge(now / 10, device_state(state), WAITING, registered=True)
        for now, state in enumerate(states)
    ]
    assert [one.switch for one in verdicts] == [(), (), (LOW_KEY,)]
    assert [one.over for one in verdicts] == [False, False, True]


def test_a_peer_that_shows_nothing_goes_over_a_little_later() -> None:
    rotation = Rotation(600.0)
    assert not rotation.judge(0.0, device_state(STOOD), WAITING, registered=True).switch
    assert not rotation.judge(SETTLE_S - 0.01, device_state(STOOD), WAITING, registered=True).switch
    assert rotation.judge(SETTLE_S, device_state(STOOD), WAITING, registered=True).switch


def test_it_is_not_over_before_the_key_is_registered() -> None:
    rotation = Rotation(60.0)
    nobody: frozenset[PublicKey] = frozenset()
    assert not rotation.judge(1000.0, device_state(), nobody, registered=False).over
    assert rotation.judge(1001.0, device_state(), nobody, registered=True).over


def test_the_grace_counts_from_the_registration() -> None:
    rotation = Rotation(60.0)
    state = device_state(peer_state(LOW_KEY))
    assert not rotation.judge(0.0, state, WAITING, registered=False).over
    assert not rotation.judge(100.0, state, WAITING, registered=True).over
    assert not rotation.judge(159.0, state, WAITING, registered=True).over
    assert rotation.judge(160.0, state, WAITING, registered=True).over


def test_it_looks_often_only_while_somebody_goes_over() -> None:
    rotation = Rotation(600.0)
    rotation.judge(0.0, device_state(), WAITING, registered=True)
    assert rotation.poll_s(1.0) == POLLS_S[1]
    rotation.hurry(1.0)
    assert rotation.poll_s(1.5) == POLLS_S[0]
    assert rotation.poll_s(60.0) > POLLS_S[1]
    rotation.judge(61.0, device_state(STOOD), WAITING, registered=True)
    assert rotation.poll_s(61.0) == POLLS_S[0]
    assert rotation.poll_s(63.0) == POLLS_S[1], "it may take its time to show that it has gone over"


# ------------------------------------------------------------------- the side that rotates: where


class Routes:
    """The routes over one device, taken from the other one's where they are added."""

    def __init__(self, table: dict[IPNetwork, str], name: str) -> None:
        self._table, self._name = table, name

    async def present(self) -> list[IPNetwork]:
        return [prefix for prefix, name in self._table.items() if name == self._name]

    async def add(self, prefixes: Sequence[IPNetwork]) -> None:
        self._table.update(dict.fromkeys(prefixes, self._name))

    async def delete(self, prefixes: Sequence[IPNetwork]) -> None:
        for prefix in prefixes:
            if self._table.get(prefix) == self._name:
                del self._table[prefix]


class Out:
    """What left by a device."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []

    def send(self, packets: tuple[bytes, ...]) -> Injected:
        self.packets += packets
        return Injected(sent=len(packets))

    def close(self) -> None:
        self.packets.clear()


class Machine:
    """Two devices, their routes, and a pair over the first."""

    def __init__(self) -> None:
        self.old, self.new = MemoryDevice("old"), MemoryDevice("new")
        self.routes: dict[IPNetwork, str] = {}
        self.halves = [
            Half(device, Routes(self.routes, device.name), Out())  # type: ignore[arg-type]
            for device in (self.old, self.new)
        ]
        self.pair = Pair(self.halves[0])

    async def install(self, key: PublicKey, prefix: IPNetwork) -> None:
        await self.pair.configure(DeviceConfig(peers=(PeerConfig(key, None, (prefix,)),)))
        await self.pair.add([prefix])

    def left_by(self, number: int) -> list[bytes]:
        out = self.halves[number].injector
        assert isinstance(out, Out)
        return out.packets


async def machine() -> Machine:
    """One peer on the old device, and a rotation that has begun."""
    made = Machine()
    await made.install(LOW_KEY, FIRST)
    assert await made.pair.rotate_to(made.halves[1]) == 1
    return made


def ipv4(destination: IPNetwork) -> bytes:
    head = b"\x45\x00" + (20).to_bytes(2, "big") + bytes(8)
    return head + bytes((10, 66, 1, 1)) + destination.network_address.packed


async def test_a_peer_is_on_both_devices_until_it_goes_over() -> None:
    made = await machine()
    assert set(made.new.peers) == set(made.old.peers) == {LOW_KEY}
    assert made.new.peers[LOW_KEY].allowed_ips == (FIRST,)
    assert made.routes == {FIRST: "old"}
    made.pair.send((ipv4(FIRST),))
    address = FIRST.network_address
    assert made.pair.waiting_at([address, SECOND.network_address]) == {LOW_KEY}
    await made.pair.switch([LOW_KEY])
    assert made.pair.waiting_at([address]) == set()
    made.pair.send((ipv4(FIRST),))
    assert made.routes == {FIRST: "new"}
    assert set(made.old.peers) == {LOW_KEY}  # what is on its way comes in still
    assert (len(made.left_by(0)), len(made.left_by(1))) == (1, 1)
    assert set((await made.pair.read()).peers) == {LOW_KEY}
    await made.pair.configure(DeviceConfig(peers=(PeerConfig(LOW_KEY, remove=True),)))
    assert not made.old.peers
    assert not made.new.peers


async def test_new_peers_are_made_on_the_new_device_once_its_key_is_registered() -> None:
    made = await machine()
    await made.install(HIGH_KEY, SECOND)
    assert made.routes[SECOND] == "old"
    assert HIGH_KEY in made.new.peers
    made.pair.use_next()
    third, prefix = PublicKey(b"t" * 32), net("10.66.4.1/32")
    await made.install(third, prefix)
    assert made.routes[prefix] == "new"
    assert third not in made.old.peers
    waiting = (await made.pair.look_ahead()).waiting
    assert waiting == {LOW_KEY, HIGH_KEY}


async def test_changes_reach_the_device_that_they_are_for() -> None:
    made = await machine()
    made.pair.use_next()
    endpoint = Endpoint(ipaddress.ip_address("192.0.2.9"), 51820)
    change = PeerConfig(LOW_KEY, endpoint, keepalive_s=25, update_only=True)
    await made.pair.configure(DeviceConfig(peers=(change,)))
    for device in (made.old, made.new):
        assert device.peers[LOW_KEY].endpoint == endpoint
    assert made.old.peers[LOW_KEY].keepalive_s == 25
    assert made.new.peers[LOW_KEY].keepalive_s == 0  # it must not initiate there
    made.new.log.clear()
    kick = (PeerConfig(LOW_KEY, remove=True), PeerConfig(LOW_KEY, endpoint, (FIRST,), 25))
    await made.pair.configure(DeviceConfig(peers=kick))
    assert not any(one.remove for config in made.new.log for one in config.peers)
    assert (await made.pair.look_ahead()).waiting == {LOW_KEY}  # a kick does not move it
    await made.pair.configure(DeviceConfig(peers=(PeerConfig(LOW_KEY, remove=True),)))
    assert not made.old.peers
    assert not made.new.peers


async def test_whoever_is_left_goes_over_at_the_end() -> None:
    made = await machine()
    await made.pair.finish()
    assert made.routes == {FIRST: "new"}
    assert not made.pair.rotating
    assert made.pair.names == ("new",)
    await made.install(HIGH_KEY, SECOND)
    assert made.routes[SECOND] == "new"
    assert made.old.refuses is not None  # closed


@pytest.mark.parametrize("routed", ["old", "new"])
async def test_an_interrupted_rotation_goes_on_where_it_was(routed: str) -> None:
    """A crash between the route and the removal from the old device, or before both."""
    made = await machine()
    made.routes[FIRST] = routed
    again = Pair(made.halves[0])
    assert await again.rotate_to(made.halves[1]) == (1 if routed == "old" else 0)
    waiting = (await again.look_ahead()).waiting
    assert waiting == (frozenset({LOW_KEY}) if routed == "old" else frozenset())
    assert made.routes == {FIRST: routed}
    assert set((await again.read()).peers) == {LOW_KEY}


# ---------------------------------------------------------------------------- both rotate at once

INHERITS = (PeerConfig(LOW_KEY, remove=True), PeerConfig(NEW_KEY, None, (FIRST,)))


async def inherited() -> Machine:
    """The peer rotates as well, and a tunnel between the two new devices stands."""
    made = await machine()
    await made.pair.configure(DeviceConfig(peers=(PeerConfig(NEW_KEY, None, (), 25),)))
    assert set(made.old.peers) == {LOW_KEY}  # though ours is not registered yet
    assert made.new.peers[NEW_KEY].keepalive_s == 25
    await made.pair.configure(DeviceConfig(peers=INHERITS))
    await made.pair.add([FIRST])
    return made


async def test_where_both_rotate_packets_are_taken_from_both_devices() -> None:
    made = await inherited()
    assert made.old.peers[LOW_KEY].allowed_ips == (FIRST,)
    assert {key: one.allowed_ips for key, one in made.new.peers.items()} == {NEW_KEY: (FIRST,)}
    ahead = await made.pair.look_ahead()
    assert set(ahead.waiting) == set(ahead.heirs) == {NEW_KEY}
    assert set((await made.pair.read()).peers) == {NEW_KEY}
    assert (await made.pair.look()).peer(LOW_KEY) is None


async def test_an_heir_goes_over_once_it_shows_that_it_takes_ours() -> None:
    made = await inherited()
    made.pair.send((ipv4(FIRST),))
    assert made.routes == {FIRST: "old"}
    assert (len(made.left_by(0)), len(made.left_by(1))) == (1, 0)
    made.pair.show(NEW_KEY, (net("10.66.1.1/32"),))
    assert len(made.left_by(1)) == 1
    await made.pair.switch([NEW_KEY])
    made.pair.send((ipv4(FIRST),))
    assert made.routes == {FIRST: "new"}
    assert len(made.left_by(1)) == 2
    assert not (await made.pair.look_ahead()).waiting
    assert set(made.old.peers) == {LOW_KEY}


async def test_one_that_had_begun_to_rotate_goes_on_on_the_new_device() -> None:
    made = Machine()
    await made.install(LOW_KEY, FIRST)
    await made.pair.configure(DeviceConfig(peers=(PeerConfig(NEW_KEY, None, (), 25),)))
    assert await made.pair.rotate_to(made.halves[1]) == 1
    assert set(made.old.peers) == {LOW_KEY}
    assert made.new.peers[NEW_KEY].keepalive_s == 25
    await made.pair.configure(DeviceConfig(peers=INHERITS))
    assert (await made.pair.look_ahead()).heirs == {NEW_KEY}
    assert made.old.peers[LOW_KEY].allowed_ips == (FIRST,)


@pytest.mark.parametrize("switched", [False, True])
async def test_an_heir_that_goes_takes_along_what_it_inherited(switched: bool) -> None:
    made = await inherited()
    if switched:
        await made.pair.switch([NEW_KEY])
    await made.pair.configure(DeviceConfig(peers=(PeerConfig(NEW_KEY, remove=True),)))
    assert not made.old.peers
    assert not made.new.peers


async def test_a_rotation_of_both_that_was_interrupted_goes_on_with_the_new_keys() -> None:
    made = await inherited()
    again = Pair(made.halves[0])
    assert await again.rotate_to(made.halves[1]) == 0
    assert made.routes == {FIRST: "new"}
    assert not made.old.peers
    assert {key: one.allowed_ips for key, one in made.new.peers.items()} == {NEW_KEY: (FIRST,)}
    assert set((await again.read()).peers) == {NEW_KEY}


def test_handshakes_of_one_that_rotates_too_show_nothing() -> None:
    rotation = Rotation(600.0)
    handshakes = 148 + 92 + 32  # both initiated
    for now, more, over in ((0.0, 0, False), (0.1, 32, False), (0.2, 32 + 80, True)):
        state = peer_state(LOW_KEY, last_handshake=WALL, rx_bytes=handshakes + more)
        verdict = rotation.judge(now, device_state(state), WAITING, WAITING, registered=True)
        assert bool(verdict.switch) is over
    assert rotation.linger_s > SETTLE_BOTH_S
