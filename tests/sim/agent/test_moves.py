"""Both ends move while servers are dead, or nothing can be committed: in virtual time."""

import pytest

from support.agent_sim.host import Host
from support.agent_sim.lab import Lab

DELAYS = (0.0, 0.02, 0.08)
PERIOD = 0.01  # of the application's packets
MEDIAN, WORST = 0.3, 1.0  # the targets, in seconds


def flowing(delay: float, seed: int) -> Lab:
    """Two agents with a flow that goes on for a while, both ways."""
    lab = Lab(delay=delay, seed=seed)
    lab.start()
    first, second = lab.hosts
    first.ping(second.eid)
    lab.first_answer(first)
    lab.world.run(3.1 + 0.37 * seed)  # the readings of the devices fall differently
    first.ping_every(PERIOD, second.eid, 2000)
    lab.world.run(0.4)
    return lab


def both_move(lab: Lab) -> None:
    for host in lab.hosts:
        host.move(f"192.0.2.{90 + host.number}")


def silence(lab: Lab, host: Host) -> float:
    """Return how long nothing came back from now on."""
    began = lab.world.now
    host.app.answered.clear()
    assert lab.world.run(20, lambda: bool(host.app.answered)), lab.story()
    return min(host.app.answered.values()) - began


@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize("dead", [0, 1, 2])
def test_both_move_while_a_server_is_dead(delay: float, dead: int) -> None:
    """Whoever prefers it has not noticed yet: it costs less than two hedges."""
    took = []
    for seed in range(5):
        lab = flowing(delay, seed)
        lab.servers[dead].die()
        lab.world.run(0.3)
        both_move(lab)
        took.append(silence(lab, lab.hosts[0]))
        lab.world.run(5)
        lab.check_quiet()
    if delay <= 0.02:
        assert sorted(took)[2] < MEDIAN, took
    assert max(took) < WORST + 4 * delay, took


@pytest.mark.parametrize("delay", DELAYS)
def test_both_move_and_nothing_is_committed_for_a_while(delay: float) -> None:
    """As in an election: registers are not acknowledged, and repeated until they are."""
    election = 0.6
    for seed in range(5):
        lab = flowing(delay, seed)
        lab.log.quorum = False
        both_move(lab)
        lab.world.after(election, lambda log=lab.log: setattr(log, "quorum", True))  # type: ignore[misc]
        assert silence(lab, lab.hosts[0]) < election + WORST, lab.story()
        lab.world.run(5)
        lab.check_quiet()


@pytest.mark.parametrize("delay", DELAYS)
def test_every_server_is_told_of_a_move(delay: float) -> None:
    """Each pushes by itself, to where it saw the agent last."""
    lab = flowing(delay, 1)
    first = lab.hosts[0]
    first.move("192.0.2.91")
    lab.world.run(2 * delay + 0.01)
    for server in lab.servers:
        endpoint = server.device.read().peers[first.control_key].endpoint
        assert endpoint is not None
        assert endpoint.address == first.underlay[0]
