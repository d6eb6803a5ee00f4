"""Initiations that cross, or come too close behind one another: what that costs a first contact."""

from functools import partial

import pytest

from support.agent_sim.host import DATA_PORT
from support.agent_sim.lab import DELAYS, EXACT, lab_with
from support.agent_sim.world import Fault
from wgmap.addresses import Endpoint
from wgmap_agent.engine.settings import Settings


@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize("apart", [0.0, 0.01, 0.03])
@pytest.mark.parametrize("first_asks", [0, 1])
def test_two_initiations_that_cross_cost_a_round_trip(
    delay: float, apart: float, first_asks: int
) -> None:
    """The response that comes behind the other's initiation says so: the lower key kicks."""
    lab = lab_with(delay, seed=1)
    first, second = lab.hosts[first_asks], lab.hosts[1 - first_asks]
    first.ping(second.eid)
    lab.world.after(apart, lambda: second.ping(first.eid))
    settings = Settings()
    # Four round trips, and what the higher key has waits for the first packet of the new session.
    most = 9 * delay + settings.flood_s + settings.settle_s + 2 * EXACT
    assert lab.first_answer(first) <= most, lab.story()
    assert lab.first_answer(second) <= most, lab.story()
    kicks = [host.engine.counters["peer.kicked"] for host in lab.hosts if host.engine]
    assert sum(kicks) <= 1, lab.story()
    lab.world.run(10)
    lab.check_quiet()


@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize("late", [0.03, 0.05, 0.08])
def test_a_kick_right_behind_what_is_delivered_again_is_taken(delay: float, late: float) -> None:
    """WireGuard takes one initiation in 20 ms: the one that it had dropped, and not the kick."""
    settings = Settings()
    kick_s = 1.1 * (settings.kick_s + 2 * delay * settings.kick_rtts)
    too_many = 0
    for seed in range(12):
        lab = lab_with(delay, (Fault("ctl.data.push", count=3),), seed=seed)
        lab.world.faults.append(Fault("ctl.data.push", drop=False, late=late, count=20))
        first, second = lab.hosts
        first.ping(second.eid)
        most = 6 * delay + kick_s + late + settings.flood_s + settings.settle_s
        assert lab.first_answer(first) <= most, lab.story()
        too_many += "too many" in lab.story()
        lab.world.run(10)
        lab.check_quiet()
    assert too_many or delay != 0.02, "kick and second delivery meet"


@pytest.mark.parametrize("delay", DELAYS)
def test_forged_crossings_cost_one_kick(delay: float) -> None:
    """Whoever can send from the endpoint of one that is silent can make handshakes look crossed."""

    def kicks(forged: int) -> int:
        lab = lab_with(delay)
        first, second = lab.hosts  # the first has the lower key: it is the one that kicks
        second.data.dead = True
        source = Endpoint(second.underlay[0], DATA_PORT)
        for number in range(forged):
            for kind in ("init", "response"):
                forge = partial(first.data.overhear, kind, source, b"")
                lab.world.after(number * 0.01, forge)
        first.ping(second.eid)
        lab.world.run(3)
        assert first.engine is not None
        return first.engine.counters["peer.kicked"]

    alone = kicks(0)
    assert 1 <= alone <= kicks(300) <= alone + 2


@pytest.mark.parametrize("delay", DELAYS)
def test_what_only_looks_crossed_is_not_kicked(delay: float) -> None:
    """Initiations that somebody forged came before the response: the device says that it stands."""
    lab = lab_with(delay)
    first, second = lab.hosts  # the first has the lower key: it is the one that would kick
    source = Endpoint(second.underlay[0], DATA_PORT)
    for number in range(100):
        lab.world.after(number * 0.002, partial(first.data.overhear, "init", source, b""))
    first.ping(second.eid)
    assert lab.first_answer(first) == pytest.approx(6 * delay, abs=EXACT), lab.story()
    lab.world.run(5)
    assert first.engine is not None
    assert first.engine.counters["peer.kicked"] == 0, lab.story()
    lab.check_quiet()
