"""First contact under every single fault: the 5 s stall of WireGuard never shows."""

import ipaddress

import pytest

from support.agent_sim.host import DATA_PORT, Host, ip_packet
from support.agent_sim.lab import DELAYS, EXACT, Lab, lab_with
from support.agent_sim.world import Fault
from wgmap.addresses import Endpoint
from wgmap_agent.engine.settings import Settings

FAULTS: dict[str, tuple[Fault, ...]] = {
    "none": (),
    "push 30 ms late": (Fault("ctl.data.push", drop=False, late=0.03, count=3),),
    "push 60 ms late": (Fault("ctl.data.push", drop=False, late=0.06, count=3),),
    "push 100 ms late": (Fault("ctl.data.push", drop=False, late=0.1, count=3),),
    "first push lost": (Fault("ctl.data.push"),),
    "the push lost twice": (Fault("ctl.data.push", count=2),),
    "acks of the first pushes lost": (Fault("ctl.data.ack", count=3),),
    "first initiation of the puller lost": (Fault("data.init", source="a1"),),
    "first response lost": (Fault("data.response", source="a2"),),
    "first initiation of the pushed side lost": (
        Fault("ctl.data.push", drop=False, late=0.1, count=3),
        Fault("data.init", source="a2"),
    ),
    "first reply lost": (Fault("ctl.data.reply"),),
    "first replies of all lost": (Fault("ctl.data.reply", count=3),),
    "first requests lost": (Fault("ctl.data.request", source="a1", count=3),),
}


def bound(delay: float) -> float:
    """The longest that a first reply may take: 1 s and four round trips."""
    return 1 + 8 * delay


@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize("fault", FAULTS)
def test_one_side_pulls(delay: float, fault: str) -> None:
    for seed in range(3):
        lab = lab_with(delay, FAULTS[fault], seed=seed)
        first, second = lab.hosts
        first.ping(second.eid)
        assert lab.first_answer(first) <= bound(delay), lab.story()
        lab.world.run(10)
        lab.check_quiet()


@pytest.mark.parametrize("delay", DELAYS)
def test_without_faults_it_takes_three_round_trips(delay: float) -> None:
    lab = lab_with(delay)
    first, second = lab.hosts
    first.ping(second.eid)
    assert lab.first_answer(first) == pytest.approx(6 * delay, abs=EXACT), lab.story()


@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize("late", [0.001, 0.01, 0.03, 0.1])
def test_an_initiation_that_overtakes_the_push_costs_little(delay: float, late: float) -> None:
    """The pushed side has kept it, and WireGuard gets it as soon as it knows whose it is."""
    push = Fault("ctl.data.push", drop=False, late=delay + late, count=3)
    lab = lab_with(delay, (push,))
    first, second = lab.hosts
    first.ping(second.eid)
    assert lab.first_answer(first) <= 6 * delay + late + EXACT, lab.story()
    lab.world.run(10)
    lab.check_quiet()


@pytest.mark.parametrize("far", DELAYS)
def test_the_servers_are_beside_the_puller(far: float) -> None:
    """Push and initiation have the same way to go: whatever holds the push up, it comes second."""
    lab = lab_with(0.0)
    first, second = lab.hosts
    lab.world.delays[frozenset(("a1", "a2"))] = far
    for server in lab.servers:
        lab.world.delays[frozenset(("a2", server.info.name))] = far
    lab.world.faults.append(Fault("ctl.data.push", drop=False, late=0.004, count=3))
    first.ping(second.eid)
    assert lab.first_answer(first) <= 6 * far + 0.004 + EXACT, lab.story()
    lab.world.run(10)
    lab.check_quiet()


@pytest.mark.parametrize("delay", DELAYS)
def test_forged_initiations_cost_at_most_a_kick(delay: float) -> None:
    """Whoever knows the puller's endpoint and the moment can make the two initiations cross."""
    lab = lab_with(delay)
    first, second = lab.hosts
    source = Endpoint(first.underlay[0], DATA_PORT)
    for step in range(40):
        lab.world.after(step * delay / 8, lambda: second.data.overhear("init", source, b""))
    first.ping(second.eid)
    assert lab.first_answer(first) <= bound(delay), lab.story()
    lab.world.run(10)
    lab.check_quiet()


@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("apart", [0.0, 0.01, 0.05, 0.15])
def test_both_pull_at_once(delay: float, fault: str, apart: float) -> None:
    lab = lab_with(delay, FAULTS[fault], seed=1)
    first, second = lab.hosts
    first.ping(second.eid)
    lab.world.after(apart, lambda: second.ping(first.eid))
    assert lab.first_answer(first) <= bound(delay), lab.story()
    assert lab.first_answer(second) <= bound(delay), lab.story()
    lab.world.run(10)
    lab.check_quiet()


@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize("both", [False, True])
def test_jitter_and_datagrams_out_of_order(delay: float, both: bool) -> None:
    """Servers see the questions in different orders; pushes, answers and initiations race."""
    for seed in range(10):
        lab = lab_with(delay, seed=seed)
        lab.world.jitter = delay / 2 + 0.005
        first, second = lab.hosts
        first.ping_every(0.03, second.eid, 20)
        if both:
            second.ping_every(0.03, first.eid, 20)
        assert lab.first_answer(first) <= bound(delay), lab.story()
        lab.world.run(10)
        lab.check_quiet()


@pytest.mark.parametrize("delay", DELAYS)
def test_the_first_hundred_packets_are_not_lost(delay: float) -> None:
    lab = lab_with(delay)
    first, second = lab.hosts
    for _ in range(120):
        first.ping(second.eid)
    lab.world.run(2)
    assert list(first.app.answered) == list(first.app.sent)[:100]


@pytest.mark.parametrize("delay", DELAYS[1:])
def test_what_still_comes_out_of_the_tun_pushes_nothing_out(delay: float) -> None:
    """WireGuard's stage drops its oldest packets: those are the ones that were held first."""
    lab = lab_with(delay)
    first, second = lab.hosts
    for _ in range(100):
        first.ping(second.eid)
    assert lab.world.run(1, lambda: bool(first.routes)), lab.story()
    assert first.engine is not None
    late = ip_packet(first.eid, second.eid, b"x")  # was queued in the TUN before the route
    for _ in range(100):
        first._do(first.engine.packet(lab.world.now, late))
    lab.world.run(2)
    assert len(first.app.answered) == 100


@pytest.mark.parametrize("delay", DELAYS)
def test_held_packets_survive_a_kick(delay: float) -> None:
    lab = lab_with(delay, FAULTS["first initiation of the puller lost"])
    first, second = lab.hosts
    for _ in range(100):
        first.ping(second.eid)
    lab.world.run(3)
    assert len(first.app.answered) == 100, lab.story()


@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize("before", [0.0, 0.05, 0.3])
def test_a_push_of_one_that_does_not_initiate_loses_nothing(delay: float, before: float) -> None:
    """It asked for us and is content (for later changes, or an operator did): we are not known."""
    lab = lab_with(delay)
    first, second = lab.hosts
    assert second.engine is not None
    second._do(second.engine.resolve(lab.world.now, first.eid))
    assert lab.world.run(1, lambda: bool(first.data.peers))
    lab.world.run(before)
    first.ping_every(0.03, second.eid, 30)
    assert lab.first_answer(first) <= bound(delay) + 0.2, lab.story()
    lab.world.run(5)
    assert first.app.answered.keys() == first.app.sent.keys(), lab.story()
    lab.check_quiet()


@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("fault", [*FAULTS, "push 400 ms late"])
def test_nothing_of_a_steady_flow_is_lost(delay: float, fault: str, both: bool) -> None:
    """What is sent while first contact is under way comes through as well, whatever is kicked."""
    late = (Fault("ctl.data.push", drop=False, late=0.4, count=3),)
    lab = lab_with(delay, FAULTS.get(fault, late))
    first, second = lab.hosts
    first.ping_every(0.03, second.eid, 60)
    if both:
        second.ping_every(0.03, first.eid, 60)
    lab.world.run(5)
    for host in lab.hosts:
        assert host.app.answered.keys() == host.app.sent.keys(), lab.story()
    lab.check_quiet()


@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize("late", [0.1, 0.3, 0.6, 1.0, 1.5])
@pytest.mark.parametrize("reverse", [False, True])
def test_an_answer_that_comes_late_loses_nothing(delay: float, late: float, reverse: bool) -> None:
    """The other side was told in time, and has begun to initiate by itself."""
    lab = lab_with(delay, (Fault("ctl.data.reply", drop=False, late=late, count=100),))
    first, second = reversed(lab.hosts) if reverse else lab.hosts
    first.ping(second.eid)
    assert lab.first_answer(first) <= bound(delay) + late, lab.story()
    lab.world.run(15)
    lab.check_quiet()


@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize("late", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("reverse", [False, True])
def test_held_packets_outlive_a_session_that_the_other_side_forgot(
    delay: float, late: float, reverse: bool
) -> None:
    """It took the initiation twice: it answered, and has another session than we do.

    It notices that nothing comes in that, and kicks; what we had sent goes again, once.
    """
    reply = Fault("ctl.data.reply", drop=False, late=late, count=100)
    lab = lab_with(delay, (reply, Fault("data.init", drop=False, twice=True)))
    first, second = reversed(lab.hosts) if reverse else lab.hosts
    if late:  # the first initiation is the other's, and nobody knows it
        lab.world.faults[1] = Fault("data.init", source=first.name, drop=False, twice=True)
    for _ in range(3):
        first.ping(second.eid)
    lab.world.run(15)
    assert list(first.app.answered) == list(first.app.sent), lab.story()
    if not late:  # else initiations may have crossed before that, and there was no such session
        assert counted(first, "peer.sent_again") == counted(second, "peer.kicked") == 1
    lab.check_quiet()


@pytest.mark.parametrize("delay", DELAYS)
def test_what_was_answered_is_not_sent_again(delay: float) -> None:
    """Though the other side begins anew right after that."""
    lab = lab_with(delay)
    first, second = lab.hosts
    first.ping(second.eid)
    lab.first_answer(first)
    lab.world.run(2.5)
    second.reboot()
    lab.world.run(0.5)
    second.ping(first.eid)
    lab.first_answer(second)
    assert counted(first, "peer.sent_again") == 0


def counted(host: Host, name: str) -> int:
    assert host.engine is not None
    return host.engine.counters.all().get(name, 0)


@pytest.mark.parametrize("delay", DELAYS)
def test_a_hundred_at_once_do_not_overflow_a_receiver(delay: float) -> None:
    """They leave in portions, in order, and those that come meanwhile behind them."""
    lab = lab_with(delay)
    first, second = lab.hosts
    second.data.buffer = first.data.buffer = 90
    for _ in range(100):
        first.ping(second.eid)
    assert lab.first_answer(first) == pytest.approx(6 * delay, abs=EXACT)
    first.ping_every(0.005, second.eid, 40)
    lab.world.run(2)
    answered, sent = list(first.app.answered), list(first.app.sent)
    assert [one for one in answered if one in sent[:100]] == sent[:100]
    assert len(answered) >= 138  # there is no room for the very next ones


@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize("kicked", [False, True])
def test_fifty_destinations_behind_one_peer(delay: float, kicked: bool) -> None:
    """WireGuard stages 128 packets of a peer, whoever they are to."""
    lab = Lab(delay=delay, prefixes=("10.66.1.1/32", "10.66.2.0/24"))
    lab.start()
    first, second = lab.hosts
    second.data.buffer = 90
    lab.world.faults += [Fault("data.init", source="a1")] * kicked
    for number in range(4 * 50):
        first.ping(ipaddress.ip_address(f"10.66.2.{1 + number % 50}"))
    lab.world.run(3)
    assert first.app.answered.keys() == first.app.sent.keys(), lab.story()
    lab.check_quiet()


@pytest.mark.parametrize("delay", DELAYS)
def test_fifty_peers_at_once(delay: float) -> None:
    lab = lab_with(delay, agents=51)
    first, *others = lab.hosts
    for other in others:
        first.ping(other.eid)
    lab.world.run(bound(delay))
    assert first.app.answered.keys() == first.app.sent.keys(), lab.story()
    lab.world.run(10)
    lab.check_quiet()


@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize("before", [0.0, 0.05, 0.2, 0.5, 1.0])
def test_the_destination_was_just_restarted(delay: float, before: float) -> None:
    """The time counts from when its agent runs: it must first have a control tunnel again."""
    lab = lab_with(delay)
    first, second = lab.hosts
    second.reboot()
    lab.world.run(before)
    first.ping(second.eid)
    assert lab.first_answer(first) <= bound(delay) + 1.5, lab.story()


@pytest.mark.parametrize("delay", DELAYS)
def test_the_destinations_key_changed(delay: float) -> None:
    lab = lab_with(delay)
    first, second = lab.hosts
    first.ping(second.eid)
    lab.first_answer(first)
    lab.world.run(1)
    second.reboot(new_key=bytes((9, 0)) + bytes(30))
    assert lab.world.run(5, lab.is_settled)
    first.app.answered.clear()
    first.app.sent.clear()
    first.ping_every(0.1, second.eid, 20)  # the first ones still go to the old key
    assert lab.first_answer(first) <= bound(delay), lab.story()


def hedge_delay(delay: float) -> float:
    """The longest after which the other servers are asked."""
    settings = Settings()
    return max(settings.hedge_floor_s, settings.hedge_rtts[1] * 2 * delay)


@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize("dead", [1, 2])
def test_dead_servers_cost_one_hedge_once(delay: float, dead: int) -> None:
    """Whichever died a moment ago, and however many: the others are asked after one delay."""
    for seed in range(8):
        lab = lab_with(delay, seed=seed, agents=3)
        for number in range(dead):
            lab.servers[(seed + number) % 3].die()
        first, second, third = lab.hosts
        first.ping(second.eid)
        assert lab.first_answer(first) <= 6 * delay + hedge_delay(delay) + EXACT, lab.story()
        lab.world.run(1)
        forget(first)
        first.ping(third.eid)
        assert lab.first_answer(first) == pytest.approx(6 * delay, abs=EXACT), lab.story()


@pytest.mark.parametrize("delay", DELAYS)
def test_a_server_alone_is_asked_and_pushes(delay: float) -> None:
    """Near one question for each first contact, while no server is silent."""
    lab = lab_with(delay, agents=8)
    first, *others = lab.hosts
    assert first.engine is not None
    before = first.engine.counters.all()
    for other in others:
        forget(first)
        first.ping(other.eid)
        assert lab.first_answer(first) == pytest.approx(6 * delay, abs=EXACT), lab.story()
    grown = {name: n - before.get(name, 0) for name, n in first.engine.counters.all().items()}
    assert grown["request.asked"] == len(others)
    sent = sum("a1->ms" in line and "data.request" in line for line in lab.world.log)
    # Probes, questions of a second server for later changes, which no packet waits for, and
    # repetitions of the question for the server set, which these servers do not know.
    besides = grown.get("server.probed", 0) + grown.get("request.second", 0)
    besides += len(lab.servers) * grown.get("request.repeated", 0)
    assert sent - besides == len(others)
    assert "request.hedged" not in grown


def test_slow_servers_lose_preference() -> None:
    """Which of the three it is does not matter: the median stays where it was."""
    for slow in range(3):
        lab = lab_with(0.02, agents=9)
        lab.world.faults.append(
            Fault("ctl.data.reply", source=f"ms{slow + 1}", count=10**6, drop=False, late=0.4)
        )
        first, *others = lab.hosts
        took = []
        for other in others:
            forget(first)
            first.ping(other.eid)
            took.append(lab.first_answer(first))
            lab.world.run(0.5)
        assert max(took) <= 6 * 0.02 + hedge_delay(0.02) + EXACT
        assert sorted(took)[4] == pytest.approx(6 * 0.02, abs=EXACT)


def forget(host: Host) -> None:
    host.app.sent.clear()
    host.app.answered.clear()


def test_no_server_at_all_refuses_the_senders_and_holds_nothing() -> None:
    lab = lab_with(0.02)
    for server in lab.servers:
        server.die()
    first, second = lab.hosts
    for _ in range(5):
        first.ping(second.eid)
    lab.world.run(12)
    assert first.app.refused == 5
    lab.check_quiet()


# ------------------------------------------------------------------------- the check can fail

NAIVE = {
    "nobody kicks": Settings(kick_s=1e9, kick_cap_s=1e9, fallback_s=1e9),
    "both initiate": Settings(fallback_s=0.0, fallback_jitter_s=0.0, kick_s=1e9, kick_cap_s=1e9),
}


@pytest.mark.parametrize("delay", DELAYS)
def test_without_copies_what_went_into_a_forgotten_session_is_lost(delay: float) -> None:
    lab = lab_with(
        delay,
        (Fault("data.init", drop=False, twice=True),),
        settings=Settings(kept_s=0.0),
    )
    first, second = lab.hosts
    first.ping(second.eid)
    lab.world.run(15)
    assert not first.app.answered


def test_an_initiation_that_is_given_again_at_once_is_taken_twice() -> None:
    """It comes while its peer is being set, and WireGuard has it in its hands."""
    for settle_s, repaired in ((0.0, 1), (Settings().settle_s, 0)):
        lab = lab_with(0.0, settings=Settings(settle_s=settle_s))
        first, second = lab.hosts
        first.ping(second.eid)
        lab.world.run(2)
        assert counted(second, "peer.kicked") == repaired, lab.story()


@pytest.mark.parametrize("kind", NAIVE)
def test_a_naive_engine_shows_the_stall(kind: str) -> None:
    """The same scenarios with the repairs switched off take 5 s and more."""
    worst = 0.0
    for fault in FAULTS.values():
        lab = lab_with(0.02, fault, settings=NAIVE[kind])
        first, second = lab.hosts
        first.ping(second.eid)
        second.ping(first.eid)
        worst = max(worst, lab.first_answer(first), lab.first_answer(second))
    assert worst > 5
