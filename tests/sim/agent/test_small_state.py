"""State stays small: idle peers go under the traffic of others, scans fill nothing."""

import ipaddress

from support.agent_sim.host import Host, ip_packet
from support.agent_sim.lab import Lab
from wgmap_agent.engine.settings import Settings

SMALL = Settings(max_flows=32, max_requests=64, max_negative=128, held_packets=200)


def counters(host: Host, lab: Lab) -> dict[str, int]:
    assert host.engine is not None
    return host.engine.status(lab.world.now).counters


def test_an_idle_peer_goes_while_others_are_in_use_and_comes_back() -> None:
    lab = Lab(delay=0.02, agents=3)
    lab.start()
    first, second, third = lab.hosts
    first.ping(second.eid)
    lab.first_answer(first)
    first.ping_every(5.0, third.eid, 200)
    lab.world.run(900 + 60)
    assert set(first.data.peers) == {third.data_key}
    assert counters(first, lab)["peer.idle_removed"] == 1
    before = set(first.app.answered)
    first.ping(second.eid, b"again")
    assert lab.world.run(1.0, lambda: set(first.app.answered) > before), lab.story()


def test_a_scan_of_the_overlay_is_bounded_and_the_bounds_are_counted() -> None:
    """A hundred new destinations a second, most of which do not exist."""
    lab = Lab(delay=0.02, settings=SMALL)
    lab.start()
    first, second = lab.hosts
    overlay = ipaddress.ip_network("10.66.0.0/16")
    for number in range(600):
        packet = ip_packet(first.eid, overlay[1000 + number], b"scan")
        lab.world.after(number * 0.01, lambda p=packet: first._route(p))  # type: ignore[misc]
    lab.world.run(5)
    assert first.engine is not None
    plane = first.engine._plane
    for _ in range(10):
        lab.world.run(1)
        assert len(plane.contact) <= SMALL.max_flows
        assert len(plane.requests) <= SMALL.max_requests
        assert len(plane.negative) <= SMALL.max_negative
        assert plane.contact.holding.total <= SMALL.held_packets
    seen = counters(first, lab)
    assert seen["request.asked"] >= 500, "the servers keep up"
    assert first.app.refused > 0
    first.ping(second.eid)
    assert lab.first_answer(first) < 1.0, lab.story()


def test_with_every_server_dead_a_scan_is_refused_beyond_the_bounds() -> None:
    lab = Lab(delay=0.02, settings=SMALL)
    lab.start()
    first = lab.hosts[0]
    for server in lab.servers:
        server.die()
    overlay = ipaddress.ip_network("10.66.0.0/16")
    for number in range(500):
        packet = ip_packet(first.eid, overlay[1000 + number], b"scan")
        lab.world.after(number * 0.005, lambda p=packet: first._route(p))  # type: ignore[misc]
    lab.world.run(3)
    seen = counters(first, lab)
    assert seen["now.flows"] == SMALL.max_flows
    assert seen["flow.refused_too_many"] >= 500 - SMALL.max_flows
    assert seen["refusal.limited"] > 0
    lab.world.run(30)
    assert counters(first, lab)["now.held_packets"] == 0
