"""Tunnels that stand: moves, double jumps, idleness, withdrawal, dead and deaf servers."""

from dataclasses import replace
from functools import partial

import pytest

from support.agent_sim.host import Host, ip_packet
from support.agent_sim.lab import Lab, server_set
from support.agent_sim.world import Fault
from wgmap.lisp import codec
from wgmap.lisp.messages import MapNotify

DELAYS = (0.0, 0.02, 0.08)


def connected(delay: float = 0.02, **options: object) -> Lab:
    """Two agents with a tunnel that stands."""
    lab = Lab(delay=delay, **options)  # type: ignore[arg-type]
    lab.start()
    first, second = lab.hosts[:2]
    first.ping(second.eid)
    lab.first_answer(first)
    lab.world.run(1)
    forget(first)
    return lab


def forget(host: Host) -> None:
    host.app.sent.clear()
    host.app.answered.clear()


def counter(host: Host, name: str) -> int:
    assert host.engine is not None
    return host.engine.counters[name]


def outage(lab: Lab, host: Host, to: Host, every: float = 0.05, seconds: float = 10.0) -> float:
    """Ping steadily from now on; return how long it took until an answer came."""
    forget(host)
    host.ping_every(every, to.eid, int(seconds / every))
    return lab.first_answer(host, seconds)


@pytest.mark.parametrize("delay", DELAYS)
def test_own_move(delay: float) -> None:
    lab = connected(delay)
    first, second = lab.hosts
    first.move("192.0.2.91")
    assert outage(lab, first, second) <= 2 * delay + 0.1, lab.story()
    assert lab.world.run(5, lab.is_settled)


@pytest.mark.parametrize("delay", DELAYS)
def test_the_peer_moves(delay: float) -> None:
    lab = connected(delay)
    first, second = lab.hosts
    second.move("192.0.2.92")
    assert outage(lab, first, second) <= 4 * delay + 0.1, lab.story()


@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize("lost", [0, 3])
def test_double_jump(delay: float, lost: int) -> None:
    """Both move at once; the first pushes may be lost as well."""
    lab = connected(delay)
    first, second = lab.hosts
    lab.world.faults.append(Fault("ctl.data.push", count=lost))
    first.move("192.0.2.91")
    second.move("192.0.2.92")
    assert outage(lab, first, second) <= 1 + 8 * delay, lab.story()
    lab.world.run(20)
    lab.check_quiet()


def test_a_stale_source_address_is_cured_at_once() -> None:
    lab = connected()
    first, second = lab.hosts
    first.data.moved()
    first.control.moved()
    assert first.engine is not None
    first._do(first.engine.addresses_changed(lab.world.now, first.underlay))
    assert outage(lab, first, second) < 0.1
    assert counter(first, "moves") == 0  # nothing to register


def test_a_flapping_interface_is_followed_at_a_limited_rate() -> None:
    lab = connected()
    first, second = lab.hosts
    for number in range(40):
        address = f"192.0.2.{100 + number}"
        lab.world.after(number * 0.01, partial(first.move, address))
    lab.world.run(5)
    assert counter(first, "moves") <= 4
    assert outage(lab, first, second) < 0.2, lab.story()
    assert lab.is_registered(first)


@pytest.mark.parametrize("delay", DELAYS)
def test_a_rebooted_peer_is_found_again(delay: float) -> None:
    """It has lost its session and its peers; nobody tells us."""
    lab = connected(delay)
    first, second = lab.hosts
    lab.world.run(3)  # no question of the contact itself tells it of us any more
    second.reboot()
    took = outage(lab, first, second, seconds=20)
    assert took < 5 + 16 * delay, lab.story()  # WireGuard alone: 15 s, and then nobody who knows us
    assert counter(first, "peer.looked_for") >= 1
    assert counter(first, "mapping.revalidated") == 0


def test_an_agents_restart_loses_no_packet() -> None:
    lab = connected()
    first, second = lab.hosts
    first.ping_every(0.01, second.eid, 300)
    lab.world.run(0.5)
    first.stop()
    lab.world.run(0.5)
    first.start()
    lab.world.run(1 + lab.settings.revalidate_spread_s)
    assert set(first.app.answered) == set(first.app.sent)
    assert counter(first, "peer.adopted") == 1
    assert counter(first, "mapping.revalidated") == 1


def test_one_way_traffic_is_no_silence() -> None:
    lab = connected()
    first, second = lab.hosts
    packet = ip_packet(first.eid, second.eid, b"nothing answers this")
    for number in range(400):
        lab.world.after(number * 0.05, lambda: first._route(packet))
    lab.world.run(20)
    assert counter(first, "peer.probed") >= 1
    assert counter(first, "peer.looked_for") == 0
    assert counter(first, "peer.kicked") == 0


def test_idle_peers_leave_with_their_routes_on_both_sides() -> None:
    lab = connected()
    lab.world.run(900 + 60)
    for host in lab.hosts:
        assert not host.data.peers
        assert not host.routes
    assert counter(lab.hosts[0], "peer.idle_removed") == 1
    first, second = lab.hosts
    first.ping(second.eid)
    assert lab.first_answer(first) < 0.2


def test_peers_that_never_stood_leave_after_90_s() -> None:
    lab = Lab(delay=0.02)
    lab.start()
    first, second = lab.hosts
    second.data.dead = True
    first.ping(second.eid)
    lab.world.run(30)
    assert first.data.peers
    lab.world.run(70)
    assert not first.data.peers
    assert not first.routes
    assert counter(first, "peer.never_stood") == 1
    assert counter(first, "peer.kicked") < 30  # backs off


def test_an_update_pushed_for_an_unused_mapping_does_not_stand_in_the_way() -> None:
    """It asked nobody and does not know us: what is sent to it must pull it all the same."""
    lab = Lab(delay=0.02)
    lab.start()
    first, second = lab.hosts
    lab.servers[0].server.push(first.control_address, lab.log.of(second.control_address))
    lab.world.run(0.5)
    assert first.data.peers
    first.ping_every(0.5, second.eid, 20)
    assert lab.first_answer(first) < 4, lab.story()


@pytest.mark.parametrize("revoke", [False, True])
def test_a_withdrawal_drops_peer_and_routes_at_once(revoke: bool) -> None:
    lab = connected()
    first, second = lab.hosts
    lab.servers[0].server.withdraw(second.prefixes[0], revoke=revoke)
    lab.world.run(0.05)
    assert not first.data.peers
    assert not first.routes
    first.ping(second.eid)
    lab.world.run(1)
    assert first.app.refused == 1


def test_a_late_push_does_not_bring_back_what_was_withdrawn() -> None:
    lab = connected()
    first, second = lab.hosts
    records = lab.log.of(second.control_address)
    second.stop()  # or it would register again
    lab.servers[0].server.withdraw(second.prefixes[0])
    lab.world.run(1)
    lab.servers[0].server.push(first.control_address, records)
    lab.world.run(1)
    assert not first.data.peers
    assert counter(first, "mapping.refused_stale") >= 1


def test_a_late_push_does_not_steal_a_prefix_back() -> None:
    lab = connected()
    first, second = lab.hosts
    old = lab.log.of(second.control_address)
    second.reboot(new_key=bytes((9, 0)) + bytes(30))
    lab.world.run(5)
    assert outage(lab, first, second) < 1
    peers = set(first.data.peers)
    lab.servers[0].server.push(first.control_address, old)
    lab.world.run(1)
    assert set(first.data.peers) == peers == {second.data_key}


def test_losing_every_server_touches_no_tunnel() -> None:
    lab = connected()
    first, second = lab.hosts
    for server in lab.servers:
        server.die()
    first.ping_every(1.0, second.eid, 4000)
    lab.world.run(4000)  # past the TTL of 60 minutes
    assert len(first.app.answered) >= 3999
    assert counter(first, "peer.kicked") == 0


def test_answers_without_quorum_are_taken_for_want_of_better() -> None:
    lab = Lab(delay=0.02)
    lab.start()
    lab.log.quorum = False
    first, second = lab.hosts
    first.ping(second.eid)
    assert lab.first_answer(first) < 0.3, lab.story()


def test_one_server_without_quorum_does_not_decide() -> None:
    """An A=0 answer waits for a better one; the dead servers do not hold it up for long."""
    lab = Lab(delay=0.02)
    lab.start()
    lab.log.quorum = False
    for server in lab.servers[1:]:
        server.die()
    first, second = lab.hosts
    first.ping(second.eid)
    assert lab.first_answer(first) < 0.5, lab.story()


# ----------------------------------------------------------------------------- control tunnels


def test_a_server_that_learns_our_key_late_costs_no_five_seconds() -> None:
    lab = Lab(delay=0.02)
    host = lab.hosts[0]
    for server in lab.servers:
        server.device.peers.clear()
    host.start()
    lab.world.run(0.5)
    lab.enrol(host)
    assert lab.world.run(2.5, lambda: lab.is_registered(host)), lab.story()
    assert counter(host, "control.kicked") >= 1


def test_a_rebooted_server_is_kicked_in_the_end() -> None:
    """It has lost its sessions and does not start handshakes itself."""
    lab = connected(servers=1)
    server, host = lab.servers[0], lab.hosts[0]
    server.device.peers.clear()
    for one in lab.hosts:
        server.enrol(one)
    before = server.device.peers[host.control_key]
    assert lab.world.run(40, lambda: before.current is not None), lab.story()


def test_an_agent_that_lost_its_counter_goes_on_from_the_servers_nonce() -> None:
    lab = connected()
    first = lab.hosts[0]
    for _ in range(5):
        first.move(f"192.0.2.{120 + lab.log.nonces[first.control_address]}")
        lab.world.run(1)
    stored = lab.log.nonces[first.control_address]
    first.stop()
    first.saved = replace(first.saved, nonce=0)
    first.start()
    assert lab.world.run(5, lambda: lab.is_registered(first)), lab.story()
    assert lab.log.nonces[first.control_address] == stored + 1
    assert first.saved.nonce == stored + 1


def test_registers_go_to_the_next_server_when_one_is_silent() -> None:
    for dead in range(3):
        lab = Lab(delay=0.02)
        lab.servers[dead].die()
        lab.start()
        assert lab.is_settled()


def test_unchanged_registers_repeat_the_same_nonce() -> None:
    lab = connected()
    first = lab.hosts[0]
    nonce = lab.log.nonces[first.control_address]
    lab.world.run(600)
    assert lab.log.nonces[first.control_address] == nonce
    assert counter(first, "register.sent") >= 10
    assert counter(first, "servers.asked") == 1  # it was answered, for a quarter of an hour


def test_a_cluster_is_replaced_under_its_agents_one_server_after_another() -> None:
    """They start with three of six servers; in the end only the other three are left."""
    lab = Lab(delay=0.02, servers=6)
    for host in lab.hosts:
        host.servers = host.servers[:3]
    lab.log.servers = server_set(lab.servers[:3])
    lab.start()
    agents = [host.control_address for host in lab.hosts]
    for gone in range(3):
        members = lab.servers[gone + 1 : gone + 4]
        lab.log.servers = server_set(members)
        members[0].server.tell_servers(agents)
        lab.world.run(20)
        lab.servers[gone].die()
    for host in lab.hosts:
        assert host.engine is not None
        status = host.engine.status(lab.world.now).servers
        assert {one.control for one in status} == {
            str(one.info.control_address) for one in lab.servers[3:]
        }
        assert all(one.last_heard_s is not None for one in status), lab.story()
    first, second = lab.hosts
    first.ping(second.eid)
    assert lab.first_answer(first) < 0.3, lab.story()
    lab.world.run(70)
    assert lab.is_settled()


def test_only_servers_can_push() -> None:
    lab = connected()
    first, second = lab.hosts
    assert first.engine is not None
    before = first.engine.counters.all()
    forged = codec.encode(MapNotify(1, lab.log.of(first.control_address)))
    assert first.engine.datagram(lab.world.now, second.control_address, forged) == []
    after = first.engine.counters.all()
    assert after == {**before, "datagram.not_a_server": 1}
