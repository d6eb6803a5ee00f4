"""Handshakes, idleness, silence, control tunnels and readings of devices."""

import random
from itertools import pairwise

import pytest

from support.agent_values import (
    HIGH_KEY,
    IDENTITY,
    LOW_KEY,
    OWN_KEY,
    SERVERS,
    WALL,
    device_state,
    net,
    peer_state,
)
from wgmap.lisp.messages import Action as Act
from wgmap.lisp.messages import Eid, Record
from wgmap.wg.device import PeerConfig
from wgmap.wg.keys import PublicKey
from wgmap_agent.engine.control import ControlTunnels
from wgmap_agent.engine.counters import Counters
from wgmap_agent.engine.handshakes import Handshakes, Step, kick
from wgmap_agent.engine.idle import Activity
from wgmap_agent.engine.moves import Moves, Recovery, Suspicion
from wgmap_agent.engine.negative import Negative
from wgmap_agent.engine.peers import Peer, Phase, Role
from wgmap_agent.engine.readings import Readings
from wgmap_agent.engine.retries import Retries
from wgmap_agent.engine.servers import Servers
from wgmap_agent.engine.settings import Settings
from wgmap_agent.engine.table import Claim, Table
from wgmap_agent.engine.types import (
    AddRoutes,
    ConfigurePeers,
    DeleteRoutes,
    Inject,
    ReadPeers,
    Refusal,
    Save,
    SavedState,
    Tunnel,
)

SETTINGS = Settings()
RTT = 0.04


def handshakes() -> Handshakes:
    return Handshakes(OWN_KEY, SETTINGS, random.Random(1))


def peer(role: Role, key: PublicKey = LOW_KEY) -> Peer:
    passive = role in (Role.PUSHED, Role.BOTH_SECOND)
    phase = Phase.PASSIVE if passive else Phase.TRYING
    return Peer(key, None, role, phase, 0.0, None, 0.0)


def judge_until(judge: Handshakes, one: Peer, *, rx: int = 0) -> tuple[float, Step]:
    """Judge whenever it is due; return the first step that is not WAIT, and when."""
    state = peer_state(one.key, rx_bytes=rx)
    for _ in range(10_000):
        assert one.check_at is not None
        now = one.check_at
        step = judge.judge(now, RTT, one, state)
        if step is not Step.WAIT:
            return now, step
    pytest.fail("waits for ever")


def test_a_handshake_that_came_stands() -> None:
    one = peer(Role.PULLER)
    judge = handshakes()
    judge.begin(0.0, RTT, one, waiting=False)
    state = peer_state(last_handshake=WALL)
    assert judge.judge(0.05, RTT, one, state) is Step.STANDS
    assert one.check_at is None


def test_the_pushed_side_waits_for_the_fallback_delay() -> None:
    one, judge = peer(Role.PUSHED), handshakes()
    judge.begin(0.0, RTT, one, waiting=False)
    at, step = judge_until(judge, one)
    assert step is Step.START
    assert 0.15 + RTT <= at <= 0.2 + RTT


def test_the_pushed_side_leaves_it_to_the_puller_where_its_initiation_came() -> None:
    one, judge = peer(Role.PUSHED), handshakes()
    judge.begin(0.0, RTT, one, waiting=False)
    at, step = judge_until(judge, one, rx=148)
    assert step is Step.KICK
    assert at > 2 * (SETTINGS.kick_s + SETTINGS.kick_rtts * RTT)


def test_the_puller_kicks_after_a_few_round_trips_and_backs_off() -> None:
    one, judge = peer(Role.PULLER), handshakes()
    waits = []
    for kicks in range(8):
        one.kicks, one.since = kicks, 0.0
        judge.begin(0.0, RTT, one, waiting=False)
        at, step = judge_until(judge, one)
        assert step is Step.KICK
        waits.append(at)
    assert 0.37 <= waits[0] <= 0.41
    assert waits[1] < 0.41  # the first again is as quick: a kick can be lost as well
    assert waits[-1] <= 1.1 * SETTINGS.kick_cap_s
    assert waits[-1] > 4


def test_the_pushed_side_never_kicks_what_nothing_came_from() -> None:
    one, judge = peer(Role.PUSHED), handshakes()
    one.phase = Phase.TRYING
    judge.begin(0.0, RTT, one, waiting=False)
    at, step = judge_until(judge, one)
    assert step is Step.GIVE_UP
    assert at == pytest.approx(SETTINGS.pushed_unheard_s, abs=0.1)


def test_of_two_that_crossed_the_lower_key_kicks_soon_and_the_higher_late() -> None:
    """OWN_KEY lies between LOW_KEY and HIGH_KEY."""
    waits = {}
    for key in (LOW_KEY, HIGH_KEY):
        one, judge = peer(Role.PULLER, key), handshakes()
        judge.begin(0.0, RTT, one, waiting=False)
        waits[key], step = judge_until(judge, one, rx=148)
        assert step is Step.KICK
    assert waits[HIGH_KEY] < 0.25  # we are the lower
    assert waits[LOW_KEY] > waits[HIGH_KEY] + 2 * SETTINGS.kick_s + 4 * RTT


def test_the_kick_is_one_request_that_initiates() -> None:
    remove, add = kick(LOW_KEY, None, (net("10.66.2.1/32"),), 25)
    assert remove == PeerConfig(LOW_KEY, remove=True)
    assert add == PeerConfig(LOW_KEY, None, (net("10.66.2.1/32"),), 25)


# ----------------------------------------------------------------------------- idle and silent


def watched(*readings: tuple[float, int, int, float | None]) -> Activity:
    activity = Activity()
    for now, rx, tx, handshake in readings:
        state = peer_state(rx_bytes=rx, tx_bytes=tx, last_handshake=handshake)
        activity.observe(now, state)
    return activity


def test_keepalives_and_handshakes_are_no_data() -> None:
    activity = watched((0, 0, 0, None), (10, 32, 0, None), (20, 32 + 180, 148 + 32, WALL))
    assert activity.data_at == 0


def test_data_either_way_counts() -> None:
    assert watched((0, 0, 0, None), (10, 128, 0, None)).data_at == 10
    assert watched((0, 0, 0, None), (10, 0, 128, None)).data_at == 10


def test_counters_that_went_back_are_a_new_peer() -> None:
    assert watched((0, 500, 500, None), (10, 0, 0, None)).data_at == 10


def test_only_unanswered_data_is_silence() -> None:
    assert watched((0, 0, 0, None), (2, 0, 500, None)).unanswered_since == 0
    assert watched((0, 0, 0, None), (2, 0, 500, None), (4, 32, 900, None)).unanswered_since is None
    assert watched((0, 0, 0, None), (2, 0, 32, None)).unanswered_since is None


def test_silence_is_probed_before_anybody_is_asked() -> None:
    moves = Moves(SETTINGS, random.Random(1))
    activity = Activity(unanswered_since=10.0)
    assert moves.judge(12.0, RTT, activity, None) == (Suspicion.NONE, None)
    verdict, recovery = moves.judge(13.0, RTT, activity, None)
    assert verdict is Suspicion.PROBE
    assert recovery is not None
    assert moves.judge(13.5, RTT, activity, recovery)[0] is Suspicion.NONE
    verdict, recovery = moves.judge(recovery.next_at, RTT, activity, recovery)
    assert verdict is Suspicion.LOOK_FOR
    assert recovery is not None
    activity.heard_at = 15.0
    assert moves.judge(15.0, RTT, activity, recovery) == (Suspicion.FOUND, None)


def test_looking_for_a_peer_backs_off() -> None:
    moves = Moves(SETTINGS, random.Random(1))
    recovery: Recovery | None = moves.own_move(0.0, 1)
    times = []
    for _ in range(10):
        assert recovery is not None
        times.append(recovery.next_at)
        verdict, recovery = moves.judge(recovery.next_at, RTT, Activity(), recovery)
        assert verdict is Suspicion.LOOK_FOR
    gaps = [b - a for a, b in pairwise(times)]
    assert times[0] < 0.02
    assert gaps[0] < 0.5
    assert max(gaps) <= 1.1 * SETTINGS.recovery_cap_s


# ----------------------------------------------------------------------------- control tunnels


def control() -> tuple[ControlTunnels, Servers, Counters]:
    counters = Counters()
    servers = Servers(SERVERS, SETTINGS, random.Random(1))
    servers.start(0.0)
    tunnels = ControlTunnels(servers, SETTINGS, random.Random(1), counters)
    (configure,) = tunnels.start(0.0)
    assert isinstance(configure, ConfigurePeers)
    assert configure.tunnel is Tunnel.CONTROL
    assert {one.key for one in configure.peers} == {info.control_key for info in SERVERS}
    assert all(one.keepalive_s == 25 for one in configure.peers)
    return tunnels, servers, counters


def test_a_control_tunnel_without_handshake_is_kicked_with_back_off() -> None:
    tunnels, _, counters = control()
    state = device_state(*(peer_state(info.control_key) for info in SERVERS))
    kicks = []
    while (now := tunnels.deadline()) is not None and now < 200:
        if tunnels.read(now, state, WALL + now):
            kicks.append(now)
    assert 1.0 <= kicks[0] <= 1.3
    assert counters["control.kicked"] == pytest.approx(3 * 10, abs=6)


def test_a_server_that_answers_is_not_kicked() -> None:
    tunnels, servers, counters = control()
    stands = [peer_state(info.control_key, last_handshake=WALL) for info in SERVERS]
    for now in range(0, 600, 5):
        for info in SERVERS:
            servers.sent(now, info.name)
            servers.heard(now, info.name)
            tunnels.heard(now, servers.get(info.name))
        tunnels.read(now, device_state(*stands), WALL + now)
    assert counters["control.kicked"] == 0


def test_the_control_device_is_kept_as_configured() -> None:
    tunnels, _, _ = control()
    present = [peer_state(info.control_key, last_handshake=WALL) for info in SERVERS[1:]]
    (action,) = tunnels.read(0.5, device_state(peer_state(HIGH_KEY), *present), WALL)
    assert isinstance(action, ConfigurePeers)
    assert PeerConfig(HIGH_KEY, remove=True) in action.peers
    assert SERVERS[0].control_key in {one.key for one in action.peers}


# ------------------------------------------------------------------- readings, negatives, retries


def test_one_reading_at_a_time_and_a_rest_after_it() -> None:
    readings = Readings(SETTINGS)
    assert readings.due(1.0, Tunnel.DATA, None) == []
    assert readings.due(1.0, Tunnel.DATA, 2.0) == []
    assert readings.due(2.0, Tunnel.DATA, 2.0) == [ReadPeers(Tunnel.DATA)]
    assert readings.due(2.1, Tunnel.DATA, 2.0) == []
    assert readings.due(2.1, Tunnel.CONTROL, 2.0) == [ReadPeers(Tunnel.CONTROL)]
    readings.done(2.5, Tunnel.DATA, 100_000)
    assert readings.deadline(Tunnel.DATA, 2.0) == pytest.approx(4.5)  # it took 0.5 s


def test_the_rest_is_for_what_a_reading_costs_not_for_waiting_for_the_processor() -> None:
    readings = Readings(SETTINGS)
    for peers, longest in ((3, 0.1), (1000, 0.7)):
        for told in (peers, None):  # of all, and of some
            readings.ask(2.0, Tunnel.DATA)
            readings.done(2.5, Tunnel.DATA, told)
            deadline = readings.deadline(Tunnel.DATA, 2.0)
            assert deadline is not None
            assert 0.0 < deadline - 2.5 <= longest


def test_a_hurry_ends_the_rest_and_lets_one_look_follow_the_other() -> None:
    readings = Readings(SETTINGS)
    readings.ask(2.0, Tunnel.DATA)
    readings.done(2.5, Tunnel.DATA, 100_000)
    readings.hurry(2.6, Tunnel.DATA)
    assert readings.deadline(Tunnel.DATA, 2.0) == pytest.approx(2.6 + SETTINGS.settle_s)
    readings.ask(2.603, Tunnel.DATA, frozenset({HIGH_KEY}))
    readings.done(2.7, Tunnel.DATA)
    assert readings.deadline(Tunnel.DATA, 2.0) == pytest.approx(2.7 + SETTINGS.poll_s)
    readings.ask(2.72, Tunnel.DATA, frozenset({HIGH_KEY}))
    readings.done(2.82, Tunnel.DATA)
    assert readings.deadline(Tunnel.DATA, 2.0) == pytest.approx(2.82 + 8 * 0.1), "for a moment only"


def test_a_lost_reading_is_asked_for_again() -> None:
    readings = Readings(SETTINGS)
    readings.due(0.0, Tunnel.DATA, 0.0)
    assert readings.due(10.0, Tunnel.DATA, 0.0) == [ReadPeers(Tunnel.DATA)]


def test_negative_answers_are_believed_for_a_short_time() -> None:
    negative = Negative(SETTINGS)
    target = net("10.66.2.1/32")
    host = target.network_address
    unknown = Record(Eid(target, 7), ttl_min=1, action=Act.SEND_MAP_REQUEST)
    denied = Record(Eid(target, 7), ttl_min=1440, action=Act.POLICY_DENIED)
    for one, sure, refusal, lifetime in (
        (unknown, True, Refusal.UNREACHABLE, SETTINGS.unknown_s),
        (unknown, False, Refusal.UNREACHABLE, SETTINGS.unsure_negative_s),
        (denied, True, Refusal.PROHIBITED, SETTINGS.negative_s),
    ):
        assert negative.note(0.0, host, one, authoritative=sure) is refusal
        assert negative.get(lifetime - 0.01, host) is refusal
        assert negative.get(lifetime, host) is None


def test_a_negative_answer_is_over_when_somebody_has_the_destination() -> None:
    negative = Negative(SETTINGS)
    hosts = [net(f"10.66.{number}.1/32") for number in (2, 3, 4)]
    for host in hosts:
        record = Record(Eid(host, 7), ttl_min=1, action=Act.SEND_MAP_REQUEST)
        negative.note(0.0, host.network_address, record, authoritative=True)
    negative.over([hosts[0], net("10.66.3.0/24"), net("fd66::/64")])
    assert negative.unknown(1.0) == (hosts[2].network_address,)
    assert negative.unknown(SETTINGS.unknown_s) == ()


def test_negative_answers_and_refusals_are_bounded() -> None:
    negative = Negative(Settings(max_negative=2, refusals_per_s=3))
    for number in range(3):
        target = net(f"10.66.2.{number}/32")
        record = Record(Eid(target, 7), ttl_min=1, action=Act.DROP)
        negative.note(0.0, target.network_address, record, authoritative=True)
    assert len(negative) == 2
    assert [negative.may_refuse(0.0) for _ in range(4)] == [True, True, True, False]
    assert negative.may_refuse(1.0)


def test_failed_routes_and_saves_are_tried_again_as_far_as_they_still_hold() -> None:
    table = Table(SETTINGS)
    kept, gone = net("10.66.2.1/32"), net("10.66.3.1/32")
    table.offer(Claim(kept, LOW_KEY, 1, 100.0))
    retries = Retries(table, Counters())
    for action in (
        AddRoutes((kept, gone)),
        DeleteRoutes((kept, gone)),
        Save(SavedState(3)),
        Inject((b"x",)),
    ):
        retries.failed(0.0, action)
    assert retries.due(0.5, SavedState(9)) == []
    assert retries.due(1.0, SavedState(9)) == [
        AddRoutes((kept,)),
        DeleteRoutes((gone,)),
        Save(SavedState(9)),  # never an older nonce
    ]
    assert retries.deadline() is None


def test_the_identity_of_these_tests_lies_between_the_keys() -> None:
    assert LOW_KEY < IDENTITY.data_key < HIGH_KEY
