"""Which peers the control interface gets."""

import ipaddress
from ipaddress import IPv6Address

from hypothesis import given
from hypothesis import strategies as st

from support.memory_device import MemoryDevice, StateLook
from wgmap.addresses import Endpoint, control_address, host_prefix
from wgmap.wg.device import DeviceConfig, DeviceState, PeerConfig, PeerState
from wgmap.wg.keys import PublicKey
from wgmap_cluster.fsm.rows import PeerRow
from wgmap_cluster.interfaces.plan import SILENT_S, ControlPlan, Silence, reachable

CONTROL = ipaddress.IPv6Network("fd77:676d:6170::/64")
ENDPOINT = Endpoint(ipaddress.ip_address("192.0.2.9"), 51822)


def key(number: int) -> PublicKey:
    return PublicKey(number.to_bytes(32, "big"))


def address(number: int) -> IPv6Address:
    return control_address(CONTROL, key(number))


def row(number: int, *, revoked: bool = False, at: int | None = None) -> PeerRow:
    where = address(number if at is None else at)
    return PeerRow(bytes(key(number)), where.packed, 0, (), revoked=revoked)


rows = st.none() | st.builds(
    lambda number, revoked: row(number, revoked=revoked), st.integers(1, 9), st.booleans()
)
# As the state machine has it: two names never share a key.
changes = st.lists(
    st.tuples(st.integers(1, 9), st.booleans(), st.booleans()).map(
        lambda t: (f"p{t[0]}", None if t[1] else row(t[0], revoked=t[2]))
    ),
    max_size=30,
)


async def settle(plan: ControlPlan, device: MemoryDevice, limit: int = 2) -> None:
    while batch := plan.batch(limit):
        assert len(batch) <= limit
        await device.configure(DeviceConfig(peers=batch))
        plan.done(batch)


@given(st.lists(changes, min_size=1, max_size=4), st.sets(st.integers(1, 12)))
async def test_the_device_ends_with_what_the_table_says(
    rounds: list[list[tuple[str, PeerRow | None]]], stale: set[int]
) -> None:
    device, plan = MemoryDevice(), ControlPlan()
    for number in stale:
        await device.configure(DeviceConfig(peers=(PeerConfig(key(number), allowed_ips=()),)))
    plan.observe(await device.read())
    table: dict[str, PeerRow] = {}
    for some in rounds:
        for name, value in some:
            plan.change(name, value)
            table.pop(name, None)
            if value is not None:
                table[name] = value
        await settle(plan, device)
        wanted = {
            PublicKey(value.control_key): (host_prefix(IPv6Address(value.control_address)),)
            for value in table.values()
            if not value.revoked
        }
        assert {k: peer.allowed_ips for k, peer in device.peers.items()} == wanted
        assert not plan.pending
        assert len(plan) == len(wanted)


def test_what_is_there_already_is_not_touched() -> None:
    plan = ControlPlan()
    plan.replace({"a": row(1), "b": row(2)})
    there = {
        key(n): PeerState(key(n), ENDPOINT, (host_prefix(address(n)),), 0, 1.0, 5, 5)
        for n in (1, 2)
    }
    plan.observe(DeviceState("d", None, 0, there))
    assert plan.batch() == ()
    plan.replace({"a": row(1), "b": row(2), "c": row(3)})
    assert plan.batch() == (PeerConfig(key(3), allowed_ips=(host_prefix(address(3)),)),)


def test_a_new_key_at_the_same_address_comes_after_the_old_one_went() -> None:
    plan = ControlPlan()
    plan.change("a", row(1))
    plan.done(plan.batch())
    plan.change("a", row(2, at=1))
    assert plan.batch(1) == (PeerConfig(key(1), remove=True),)
    assert plan.key_of(address(1)) == key(2)
    plan.done(plan.batch(1))
    assert plan.batch(1) == (PeerConfig(key(2), allowed_ips=(host_prefix(address(1)),)),)


def test_a_change_while_a_batch_is_on_its_way_is_not_lost() -> None:
    plan = ControlPlan()
    plan.change("a", row(1))
    batch = plan.batch()
    plan.change("a", row(1, revoked=True))
    plan.done(batch)
    assert plan.batch() == (PeerConfig(key(1), remove=True),)
    assert plan.key_of(address(1)) is None


def test_plain_clients_are_no_wireguard_peers() -> None:
    plan = ControlPlan()
    plan.change("oor", PeerRow(b"", address(1).packed, 0, ()))
    assert not plan.pending


def state(number: int, rx: int, handshake: float | None = 1.0) -> DeviceState:
    peer = PeerState(key(number), ENDPOINT, (), 0, handshake, rx, 0)
    return DeviceState("d", None, 0, {peer.key: peer})


class TestSilence:
    def test_a_peer_is_due_after_180_s_and_then_after_180_more(self) -> None:
        silence = Silence()
        silence.observe(0, state(1, rx=5))
        silence.observe(100, state(1, rx=5))
        assert silence.due(SILENT_S - 1, 10) == []
        assert silence.due(SILENT_S, 10) == [key(1)]
        silence.observe(200, state(1, rx=0, handshake=None))  # made anew: that is no sign of life
        assert silence.due(300, 10) == []
        assert silence.due(2 * SILENT_S, 10) == [key(1)]

    def test_bytes_or_a_handshake_are_a_sign_whatever_the_wall_clock_says(self) -> None:
        silence = Silence()
        silence.observe(0, state(1, rx=5, handshake=1e9))
        silence.observe(170, state(1, rx=6, handshake=1e9))
        silence.observe(340, state(1, rx=6, handshake=1e9 + 1))
        assert silence.due(500, 10) == []

    def test_the_number_is_limited_and_the_longest_silent_go_first(self) -> None:
        silence = Silence()
        peers = {**state(1, 1).peers}
        for number in (1, 2, 3):
            peers |= state(number, 1).peers
            silence.observe(number, DeviceState("d", None, 0, dict(peers)))
        assert silence.due(1000, 2) == [key(1), key(2)]
        assert silence.due(1000, 2) == [key(3)]

    def test_a_renewed_peer_keeps_prefix_and_endpoint(self) -> None:
        plan = ControlPlan()
        plan.change("a", row(1))
        assert plan.renewal(state(1, 1).peers[key(1)]) == (
            PeerConfig(key(1), remove=True),
            PeerConfig(key(1), ENDPOINT, (host_prefix(address(1)),), keepalive_s=0),
        )
        assert plan.renewal(state(2, 1).peers[key(2)]) is None


def test_reachable_is_who_shook_hands_within_180_s() -> None:
    plan = ControlPlan()
    plan.change("a", row(1))

    def count(number: int, handshake: float | None, wall_now: float) -> int:
        look = StateLook(state(number, 1, handshake=handshake))
        return reachable(plan.wanted(), look, wall_now)

    assert count(1, 1000.0, 1179.0) == 1
    assert count(1, 1000.0, 1180.0) == 0
    assert count(1, None, 1.0) == 0
    assert count(2, 1000.0, 1179.0) == 0, "it is not enrolled"
