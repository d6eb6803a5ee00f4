"""The data key rotates: who goes over when, on either side."""

import ipaddress
from collections.abc import Sequence

import pytest

from support.agent_values import (
    HIGH_KEY,
    LOW_KEY,
    OWN_KEY,
    device_state,
    locator,
    make_engine,
    net,
    peer_state,
    record,
    server,
    unread_engine,
)
from support.memory_device import MemoryDevice
from wgmap.addresses import Endpoint, IPNetwork
from wgmap.lisp import codec
from wgmap.lisp.messages import MapNotify, MapNotifyAck, MapRegister
from wgmap.wg.device import DeviceConfig, PeerConfig
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.engine import MAX_PUT_OFF, Engine
from wgmap_agent.engine.rotation import (
    LEAST_DATA_BYTES,
    POLLS_S,
    SETTLE_BOTH_S,
    SETTLE_S,
    Rotation,
)
from wgmap_agent.engine.successors import QUIET_S
from wgmap_agent.engine.types import Action, ConfigurePeers, Inject, ReadPeers, Send, Tunnel
from wgmap_agent.runner.injector import Injected
from wgmap_agent.runner.pair import Half, Pair

MS1 = server(1).control_address
NEW_KEY = PublicKey(b"n" * 32)
HIGHEST = PublicKey(b"\xff" * 32)
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


# ---------------------------------------------------------------------- the side that is told of it


def push(engine: Engine, now: float, *, key: PublicKey, port: int, version: int) -> list[Action]:
    place = locator(key)
    moved = record("10.66.2.1/32", type(place)(place.address, port, key), version=version)
    return engine.datagram(now, MS1, codec.encode(MapNotify(int(now * 1000), (moved,))))


def standing() -> Engine:
    """An engine with one peer whose tunnel stands."""
    engine = make_engine()
    engine.peers_read(0.0, ReadPeers(Tunnel.DATA), device_state(), WALL)
    push(engine, 1.0, key=LOW_KEY, port=51820, version=5)
    read(engine, 1.5, peer_state(LOW_KEY, last_handshake=WALL, rx_bytes=500, tx_bytes=500))
    assert [one.state for one in engine.status(1.5).peers] == ["up"]
    return engine


def read(engine: Engine, now: float, *states: object) -> list[Action]:
    engine.timer(now)
    return engine.peers_read(now, ReadPeers(Tunnel.DATA), device_state(*states), WALL)  # type: ignore[arg-type]


def peers_in(actions: list[Action]) -> list[PeerConfig]:
    return [
        peer
        for action in actions
        if isinstance(action, ConfigurePeers) and action.tunnel is Tunnel.DATA
        for peer in action.peers
    ]


OLD_UP = peer_state(LOW_KEY, last_handshake=WALL, rx_bytes=600, tx_bytes=600)


def test_a_new_key_at_another_port_is_tried_while_the_old_one_goes_on() -> None:
    engine = standing()
    actions = push(engine, 2.0, key=NEW_KEY, port=51830, version=6)
    [tried] = peers_in(actions)
    assert (tried.key, tried.allowed_ips, tried.keepalive_s) == (NEW_KEY, (), 25)
    assert not engine.successors.is_quiet(2.0)
    [peer] = engine.status(2.0).peers
    assert peer.key == str(LOW_KEY)
    assert peers_in(read(engine, 2.1, OLD_UP, peer_state(NEW_KEY, allowed_ips=()))) == []
    stands = peer_state(NEW_KEY, allowed_ips=(), last_handshake=WALL, rx_bytes=92)
    actions = read(engine, 2.2, OLD_UP, stands)
    [change] = [one for one in actions if isinstance(one, ConfigurePeers) and len(one.peers) > 1]
    gone, new = change.peers  # one request: no moment without an owner
    assert [one.key for one in peers_in(actions) if one.remove] == [LOW_KEY]
    assert (gone.key, gone.remove) == (LOW_KEY, True)
    assert (new.key, new.allowed_ips) == (NEW_KEY, (FIRST,))
    assert any(isinstance(one, Inject) for one in actions), "the owner must see it"
    assert not engine.successors.is_quiet(2.3)
    assert engine.successors.is_quiet(2.2 + QUIET_S)
    [peer] = engine.status(2.2).peers
    assert peer.key == str(NEW_KEY)


def until_read(engine: Engine, now: float) -> float:
    """Let time pass until the data device is to be read; returns when."""
    end = now + 10.0
    while now < end:
        if any(isinstance(a, ReadPeers) and a.tunnel is Tunnel.DATA for a in engine.timer(now)):
            return now
        now += 0.001
    raise AssertionError


def test_its_owner_is_shown_that_a_new_key_took_over_until_it_shows_that_it_saw() -> None:
    """An echo request may be lost, and nobody else may have anything to send."""
    engine = standing()
    push(engine, 2.0, key=NEW_KEY, port=51830, version=6)
    shown, now = [], 2.1
    for number in range(6):
        now = until_read(engine, now)
        came = 92 if number < 4 else 92 + LEAST_DATA_BYTES
        stands = peer_state(NEW_KEY, allowed_ips=(FIRST,), last_handshake=WALL, rx_bytes=came)
        actions = read(engine, now, *((stands,) if number else (OLD_UP, stands)))
        shown.append((round(now), sum(isinstance(one, Inject) for one in actions)))
    assert shown == [(2, 1), (2, 1), (4, 1), (6, 1), (8, 0), (10, 0)]


@pytest.mark.parametrize(("strangers", "answered"), [(0, False), (5000, True)])
def test_that_a_new_key_stands_is_seen_soon(strangers: int, answered: bool) -> None:
    """On a busy machine with a few peers, and where many peers make a look expensive."""
    engine = standing()
    many = [peer_state(PublicKey(number.to_bytes(32, "big"))) for number in range(1, strangers + 1)]
    push(engine, 2.0, key=NEW_KEY, port=51830, version=6)
    began = until_read(engine, 3.6)
    waits = peer_state(NEW_KEY, allowed_ips=())
    took = 0.4
    state = device_state(OLD_UP, waits, *many)
    engine.peers_read(began + took, ReadPeers(Tunnel.DATA), state, WALL)
    now = began + took + 0.05
    if answered:
        engine.response(now, Endpoint(ipaddress.ip_address("192.0.2.12"), 51830))
    assert until_read(engine, now) - now < 0.1


def test_responses_make_it_look_at_once_only_once_a_try() -> None:
    """They may be forged."""
    engine = standing()
    push(engine, 2.0, key=NEW_KEY, port=51830, version=6)
    source = engine.successors.all()[0].offer.endpoint
    assert [engine.successors.answered(source) for _ in range(3)] == [True, False, False]
    read(engine, 3.1, OLD_UP, peer_state(NEW_KEY, allowed_ips=()))  # tried again
    assert engine.successors.answered(source)


def test_a_new_key_that_is_told_before_the_device_was_read_drops_nothing() -> None:
    """Whoever is started anew hears of it at once, and knows its peers a moment later."""
    engine = unread_engine()
    assert push(engine, 0.05, key=NEW_KEY, port=51830, version=6) == [], "nor acknowledged yet"
    actions = engine.peers_read(0.1, ReadPeers(Tunnel.DATA), device_state(OLD_UP), WALL)
    [tried] = peers_in(actions)
    assert (tried.key, tried.allowed_ips) == (NEW_KEY, ())
    [peer] = engine.status(0.1).peers
    assert peer.key == str(LOW_KEY)
    sent = [one.datagram for one in engine.timer(0.2) if isinstance(one, Send)]
    assert any(isinstance(codec.decode(one), MapNotifyAck) for one in sent)


def test_what_comes_before_the_device_was_read_is_bounded() -> None:
    engine = unread_engine()
    for number in range(MAX_PUT_OFF + 9):
        assert push(engine, number / 1e4, key=LOW_KEY, port=51820, version=number + 1) == []
    engine.peers_read(0.1, ReadPeers(Tunnel.DATA), device_state(), WALL)
    assert engine.counters["push.received"] == MAX_PUT_OFF


def test_a_new_key_at_the_same_port_means_that_the_old_one_is_dead() -> None:
    engine = standing()
    actions = push(engine, 2.0, key=NEW_KEY, port=51820, version=6)
    assert {(one.key, one.remove) for one in peers_in(actions)} >= {(LOW_KEY, True)}
    assert engine.status(2.0).counters["peer.key_changed"] == 1


def test_a_handshake_that_the_other_side_is_at_is_not_begun_anew() -> None:
    engine = standing()
    push(engine, 2.0, key=NEW_KEY, port=51830, version=6)
    at_it = peer_state(NEW_KEY, allowed_ips=(), rx_bytes=148)
    assert peers_in(read(engine, 3.1, OLD_UP, at_it)) == []
    assert peers_in(read(engine, 4.0, OLD_UP, at_it)) == []
    assert len(peers_in(read(engine, 4.2, OLD_UP, at_it))) == 2


def test_a_new_key_that_never_stands_is_taken_all_the_same_in_the_end() -> None:
    engine = standing()
    push(engine, 2.0, key=NEW_KEY, port=51830, version=6)
    silent = peer_state(NEW_KEY, allowed_ips=())
    kicked = read(engine, 3.1, OLD_UP, silent)
    assert [(one.key, one.remove) for one in peers_in(kicked)] == [
        (NEW_KEY, True),
        (NEW_KEY, False),
    ]
    assert peers_in(read(engine, 4.9, OLD_UP, silent)) == []  # twice as long now
    actions = read(engine, 62.5, OLD_UP, silent)
    assert (LOW_KEY, True) in {(one.key, one.remove) for one in peers_in(actions)}
    assert engine.status(62.5).counters["peer.successor_failed"] == 1


def test_where_both_rotate_the_lower_new_key_initiates() -> None:
    engine = standing()
    engine.rotate(1.9, HIGHEST, 51830)
    [tried] = peers_in(push(engine, 2.0, key=NEW_KEY, port=51830, version=6))
    assert (tried.key, tried.allowed_ips, tried.keepalive_s) == (NEW_KEY, (), None)
    silent = peer_state(NEW_KEY, allowed_ips=())
    assert peers_in(read(engine, 3.2, OLD_UP, silent)) == []
    late = peers_in(read(engine, 3.6, OLD_UP, silent))
    assert [(one.remove, one.keepalive_s) for one in late] == [(True, None), (False, 25)]


def test_where_we_have_rotated_we_initiate_whatever_the_keys() -> None:
    engine = standing()
    engine.rotate(1.8, HIGHEST, 51830)
    engine.successors.rotated()
    [tried] = peers_in(push(engine, 2.0, key=NEW_KEY, port=51830, version=6))
    assert tried.keepalive_s == 25


def test_a_revoked_successor_leaves_the_device() -> None:
    engine = standing()
    push(engine, 2.0, key=NEW_KEY, port=51830, version=6)
    gone = record("10.66.2.1/32", locator(NEW_KEY, key_revoked=True), ttl_min=0, version=0)
    actions = engine.datagram(3.0, MS1, codec.encode(MapNotify(7, (gone,))))
    assert (NEW_KEY, True) in {(one.key, one.remove) for one in peers_in(actions)}
    assert peers_in(read(engine, 3.1, OLD_UP)) == []


# --------------------------------------------------------------------------------- the registration


def test_the_new_key_is_registered_and_peers_are_told_once_it_is_acknowledged() -> None:
    engine = standing()
    actions = engine.rotate(2.0, NEW_KEY, 51830)
    [sent] = [codec.decode(one.datagram) for one in actions if isinstance(one, Send)]
    assert isinstance(sent, MapRegister)
    assert {(one.key, one.port) for one in sent.records[0].locators} == {(bytes(NEW_KEY), 51830)}
    assert not engine.is_registered(2.0)
    assert engine.rotate(2.1, NEW_KEY, 51830) == []
    asked_of = next(one.server for one in actions if isinstance(one, Send))
    source = server(int(asked_of[-1])).control_address
    engine.datagram(2.2, source, codec.encode(MapNotify(sent.nonce, sent.records)))
    assert engine.is_registered(2.2)
    asked = engine.counters["mapping.revalidated"]
    engine.timer(8.0)
    assert engine.counters["mapping.revalidated"] > asked
    for key in (OWN_KEY, NEW_KEY):  # neither is ever a peer
        push(engine, 8.1, key=key, port=51820, version=9)
        assert str(key) not in {one.key for one in engine.status(8.1).peers}
