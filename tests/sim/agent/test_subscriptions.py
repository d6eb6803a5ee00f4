"""A change reaches those who use a mapping, whichever server has died just before it."""

import pytest

from support.agent_sim.host import Host
from support.agent_sim.lab import Lab, server_set
from wgmap_agent.engine.peers import Peer
from wgmap_agent.engine.settings import Settings

STALENESS_S = Settings().staleness_s
LATER_S = STALENESS_S + 1.0  # by then the second server was asked


def met(delay: float, agents: int = 2, seed: int = 0) -> Lab:
    """The first agent has asked for all others, and tunnels stand."""
    lab = Lab(delay=delay, agents=agents, seed=seed)
    lab.log.servers = server_set(lab.servers)
    lab.start()
    first, *others = lab.hosts
    for other in others:
        first.ping(other.eid)
    assert lab.world.run(5, lambda: len(first.app.answered) == len(others)), lab.story()
    return lab


def peer_of(host: Host, other: Host) -> Peer:
    assert host.engine is not None
    claim = host.engine._plane.data.table.owner(other.eid)
    assert claim is not None
    return host.engine._plane.data.peers[claim.key]


def counted(host: Host, name: str) -> int:
    assert host.engine is not None
    return host.engine.counters[name]


@pytest.mark.parametrize("delay", [0.0, 0.02])
@pytest.mark.parametrize("side", ["who asked", "who was pushed"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_any_server_may_die_just_before_a_change(delay: float, side: str, number: int) -> None:
    lab = met(delay, seed=number)
    lab.world.run(LATER_S)
    holder, moved = lab.hosts if side == "who asked" else reversed(lab.hosts)
    assert len(peer_of(holder, moved).told_by) >= 2, lab.story()
    lab.servers[number].die()
    moved.move("192.0.2.91")

    def knows() -> bool:
        endpoint = peer_of(holder, moved).endpoint
        return endpoint is not None and str(endpoint.address) == "192.0.2.91"

    # A register that goes to the dead server is repeated at the next one.
    assert lab.world.run(1.0, knows), lab.story()


def test_the_second_server_is_asked_once_for_each_contact_and_later() -> None:
    lab = met(0.02, agents=6)
    first, others = lab.hosts[0], lab.hosts[1:]
    assert counted(first, "mapping.second_server") == 0, "no first packet waits for it"
    lab.world.run(30)
    assert counted(first, "mapping.second_server") == len(others)
    assert counted(first, "request.second") == len(others)
    assert counted(first, "mapping.revalidated") == 0


def test_a_peer_that_left_and_came_back_waits_for_its_second_question_anew() -> None:
    lab = met(0.02)
    first, second = lab.hosts
    lab.world.run(STALENESS_S - 0.2)
    for host, other in ((first, second), (second, first)):
        assert host.engine is not None
        host._do(host.engine.forget(lab.world.now, other.eid))
    first.ping(second.eid)
    lab.world.run(STALENESS_S)
    assert peer_of(first, second).stood_at is not None
    assert counted(first, "mapping.second_server") == 0, "the first contact's is void"
    lab.world.run(LATER_S)
    assert counted(first, "mapping.second_server") == 1


def test_when_a_server_is_gone_for_good_everything_is_told_by_two_others_again() -> None:
    lab = met(0.02, agents=6)
    first, others = lab.hosts[0], lab.hosts[1:]
    lab.world.run(LATER_S)
    lab.servers[0].die()
    lab.world.run(40)
    for other in others:
        assert peer_of(first, other).told_by == {"ms2", "ms3"}, lab.story()


def test_one_server_alone_is_not_asked_twice() -> None:
    lab = Lab(servers=1)
    lab.start()
    first, second = lab.hosts
    first.ping(second.eid)
    lab.first_answer(first)
    lab.world.run(20)
    assert counted(first, "request.second") == 0
    assert peer_of(first, second).told_by == {"ms1"}


def test_who_waits_for_a_handshake_is_not_asked_for_again_meanwhile() -> None:
    lab = Lab()
    lab.start()
    first, second = lab.hosts
    second.stop()
    second.data.dead = True
    first.ping(second.eid)
    lab.world.run(20)
    assert counted(first, "mapping.second_server") == 0
