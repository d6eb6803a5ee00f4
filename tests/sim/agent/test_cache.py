"""No server answers: agents that were rebooted find each other by what they had cached."""

import pytest

from support.agent_sim.host import Host
from support.agent_sim.lab import Lab
from wgmap.addresses import host_prefix
from wgmap_agent.engine.settings import Settings

DELAYS = (0.0, 0.02, 0.08)
SAVED_S = 40.0  # by then a change is on disk


def connected(delay: float, settings: Settings | None = None) -> Lab:
    """Two agents with a tunnel that stands, cached on disk."""
    lab = Lab(delay=delay, settings=settings)
    lab.start()
    first, second = lab.hosts
    first.ping(second.eid)
    lab.first_answer(first)
    lab.world.run(SAVED_S)
    return lab


def counter(host: Host, name: str) -> int:
    assert host.engine is not None
    return host.engine.counters[name]


def outage(lab: Lab, host: Host, to: Host, seconds: float = 20.0) -> float:
    """Ping steadily from now on; return how long it took until an answer came."""
    host.app.sent.clear()
    host.app.answered.clear()
    host.ping_every(0.05, to.eid, int(seconds / 0.05))
    return lab.first_answer(host, seconds)


def unpowered(lab: Lab, *hosts: Host) -> None:
    """Kill every server, then cut the power of these hosts."""
    for server in lab.servers:
        server.die()
    for host in hosts:
        host.reboot()


@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize("both", [False, True], ids=["one rebooted", "both rebooted"])
def test_a_rebooted_agent_reaches_its_recent_peers(delay: float, both: bool) -> None:
    lab = connected(delay)
    first, second = lab.hosts
    unpowered(lab, *((first, second) if both else (first,)))
    assert outage(lab, first, second) < 3 + 8 * delay, lab.story()
    assert counter(first, "request.recalled") == 1
    lab.world.run(30)
    lab.check_quiet()


def test_both_rebooted_and_each_pulls_the_other() -> None:
    lab = connected(0.02)
    first, second = lab.hosts
    unpowered(lab, first, second)
    second.ping_every(0.05, first.eid, 200)
    assert outage(lab, first, second) < 8, lab.story()
    assert lab.world.run(8, lambda: bool(second.app.answered)), lab.story()
    lab.world.run(30)
    lab.check_quiet()


def test_a_returning_flow_is_served_from_memory_while_the_servers_are_dead() -> None:
    lab = connected(0.02)
    first, second = lab.hosts
    unpowered(lab)
    lab.world.run(1000)  # idle: the peer is gone on both sides
    assert not first.data.peers
    assert outage(lab, first, second) < 2, lab.story()


def test_without_a_cache_the_packets_are_refused() -> None:
    lab = connected(0.02, Settings(cache_peers=0))
    first, second = lab.hosts
    unpowered(lab, first)
    first.ping(second.eid)
    lab.world.run(20)
    assert not first.data.peers
    assert first.app.refused >= 1


def test_a_server_that_answers_wins_over_the_cache() -> None:
    """Nobody had to wait for the cache, and what was recalled is confirmed at once."""
    lab = connected(0.02)
    first, second = lab.hosts
    unpowered(lab, first)
    outage(lab, first, second)
    assert unconfirmed(first) == 1
    lab.servers[0].revive()
    assert lab.world.run(15, lambda: unconfirmed(first) == 0), lab.story()
    first.reboot()
    lab.world.run(3)
    assert outage(lab, first, second) < 0.3, lab.story()
    assert counter(first, "request.recalled") == 0


@pytest.mark.parametrize("how", ["revoked", "gone", "moved"])
def test_what_ended_while_away_is_cut_when_a_server_is_back(how: str) -> None:
    lab = connected(0.02)
    first, second = lab.hosts
    prefix = host_prefix(second.eid)
    unpowered(lab, first)
    outage(lab, first, second)
    assert second.data_key in first.data.peers
    registered = lab.log.mappings[prefix]
    if how == "moved":
        second.move("192.0.2.77")
    elif how == "revoked":
        lab.servers[1].server.withdraw(prefix, revoke=True)
        lab.log.enrolled[second.control_address] = ()
    else:
        lab.servers[1].server.withdraw(prefix)
        lab.log.enrolled[second.control_address] = ()
    for server in lab.servers:
        server.revive()
    if how == "moved":
        lab.world.run(15)
        assert lab.log.mappings[prefix].nonce > registered.nonce
        assert unconfirmed(first) == 0
        assert outage(lab, first, second) < 1, lab.story()
        return
    assert lab.world.run(15, lambda: second.data_key not in first.data.peers), lab.story()
    lab.world.run(SAVED_S)
    assert second.data_key not in {one.key for one in first.cache.peers}


def test_unconfirmed_peers_go_after_the_configured_time() -> None:
    lab = connected(0.02, Settings(unconfirmed_s=120.0))
    first, second = lab.hosts
    unpowered(lab, first)
    outage(lab, first, second)
    first.ping_every(1.0, second.eid, 200)  # in use all the time
    assert lab.world.run(60, lambda: False) is False
    assert second.data_key in first.data.peers
    assert lab.world.run(60, lambda: second.data_key not in first.data.peers), lab.story()
    assert counter(first, "peer.unconfirmed_removed") == 1
    assert len(first.cache.peers) <= 1
    first.ping(second.eid)
    lab.world.run(20)
    assert second.data_key not in first.data.peers  # it is too old to be recalled


def unconfirmed(host: Host) -> int:
    assert host.engine is not None
    return host.engine._plane.data.unconfirmed()
