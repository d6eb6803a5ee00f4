"""The lab's underlay, without daemons: reachability, delay, loss, changes while it runs."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from support.lab import execute, leftovers, wait_until
from wgmap_chaos.lab import removal, topology
from wgmap_chaos.lab.locking import locked
from wgmap_chaos.lab.relay import Quality, RelayControl
from wgmap_chaos.lab.topology import Topology
from wgmap_chaos.lab.underlay import RELAY_NAME, Underlay

pytestmark = pytest.mark.netns
SERVER4, SERVER6 = "192.0.2.1", "2001:db8:6::1"
# What the machine may add to a round trip while others use it; the best of many is compared.
SLACK_MS = 1.5
SOON_MS = 0.5  # ping takes both times from the wall clock; the best of many was 0.3 ms short


class Bed:
    """An underlay of one server and two agents."""

    def __init__(self, plan: Topology, underlay: Underlay) -> None:
        self.plan = plan
        self.underlay = underlay
        self.agent, self.other = (agent.netns for agent in plan.agents)

    def ping(self, target: str, *options: str) -> str:
        argv = ["ping", "-q", "-n", *options, target]
        return execute("ip", "netns", "exec", self.agent, *argv).stdout

    def best_ms(self, target: str, count: int = 20) -> float:
        text = self.ping(target, "-c", str(count), "-i", "0.01", "-W", "5")
        return float(text.split("min/avg/max/mdev = ")[1].split("/")[0])

    def received(self, target: str, count: int) -> int:
        text = self.ping(target, "-c", str(count), "-i", "0.004", "-W", "1")
        found = re.search(r"(\d+) received", text)
        assert found, text
        return int(found[1])

    def relay(self) -> RelayControl:
        return RelayControl(self.plan.paths.socket(RELAY_NAME))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    directory = tmp_path_factory.mktemp("underlay")
    plan = topology.plan(directory, 1, 2)
    with locked(directory) as lock:
        try:
            plan.paths.run.mkdir()
            plan.paths.logs.mkdir()
            underlay = Underlay(plan, lock)
            underlay.make()
            yield Bed(plan, underlay)
        finally:
            removal.remove(plan.id, plan.paths)
        assert leftovers(directory) == []


@pytest.fixture
def bed(made: Bed) -> Iterator[Bed]:
    made.underlay.set(Quality())
    yield made
    made.underlay.set(Quality())


def test_hosts_reach_each_other_in_both_families_at_once(bed: Bed) -> None:
    for target in (SERVER4, SERVER6, "192.0.2.12", "2001:db8:6::12"):
        assert bed.best_ms(target, 5) < 1.0


def test_a_detour_delays_one_way_between_two_hosts_and_goes_again(bed: Bed) -> None:
    server, agent = bed.plan.servers[0], bed.plan.agents[0]
    bed.underlay.divert(server, agent, 30)
    try:
        assert 30 - SOON_MS <= bed.best_ms(SERVER4, 5) < 30 + SLACK_MS
        assert bed.best_ms("192.0.2.12", 5) < SLACK_MS
        bed.underlay.set(Quality(delay_ms=10))
        assert 50 - SOON_MS <= bed.best_ms(SERVER4, 5) < 50 + SLACK_MS
        bed.underlay.set(Quality())
        assert 30 - SOON_MS <= bed.best_ms(SERVER4, 5) < 30 + SLACK_MS
    finally:
        bed.underlay.divert(server, agent, 0)
    assert bed.underlay.detours() == ()
    assert bed.best_ms(SERVER4, 5) < SLACK_MS


def test_every_namespace_promotes_secondary_addresses(bed: Bed) -> None:
    key = "net.ipv4.conf.all.promote_secondaries"
    for netns in bed.plan.namespaces:
        assert execute("ip", "netns", "exec", netns, "sysctl", "-n", key).stdout == "1\n"


@pytest.mark.parametrize("delay_ms", [2.0, 20.0, 80.0])
@pytest.mark.parametrize("target", [SERVER4, SERVER6])
def test_a_round_trip_takes_twice_the_one_way_delay(bed: Bed, delay_ms: float, target: str) -> None:
    bed.underlay.set(Quality(delay_ms=delay_ms))
    bed.ping(target, "-c", "1")  # neighbours are known then
    assert 2 * delay_ms - SOON_MS < bed.best_ms(target) < 2 * delay_ms + SLACK_MS


def test_loss_strikes_each_way_once(bed: Bed) -> None:
    bed.underlay.set(Quality(loss_percent=50))
    # A quarter survives both ways: 75 of 300, give or take five standard deviations.
    assert 75 - 38 < bed.received(SERVER4, 300) < 75 + 38
    status = bed.relay().status()
    assert status.counters.lost > 0
    assert (status.counters.overflowed, status.counters.refused) == (0, 0)


def test_everything_can_be_lost_and_comes_back(bed: Bed) -> None:
    bed.underlay.set(Quality(loss_percent=100))
    assert bed.received(SERVER4, 3) == 0
    bed.underlay.set(Quality())
    wait_until(lambda: bed.received(SERVER4, 1), "the underlay works again")


ECHO = """
import socket, sys
udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); udp.bind(("2001:db8:6::1", 5001))
tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM); tcp.bind(("192.0.2.1", 5002)); tcp.listen()
print("ready", flush=True)
data, peer = udp.recvfrom(65535); udp.sendto(data, peer)
connection, _ = tcp.accept()
while data := connection.recv(65535): connection.sendall(data)
"""
ASK = """
import socket
udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); udp.settimeout(5)
udp.sendto(b"u" * 1400, ("2001:db8:6::1", 5001)); assert udp.recv(65535) == b"u" * 1400
tcp = socket.create_connection(("192.0.2.1", 5002), 5); tcp.sendall(b"t" * 50_000)
got = 0
while got < 50_000: got += len(tcp.recv(65535))
print("whole")
"""


def test_checksums_and_segments_are_complete_behind_the_relay(bed: Bed) -> None:
    bed.underlay.set(Quality(delay_ms=1))
    server = bed.plan.servers[0].netns
    argv = ["ip", "netns", "exec", server, sys.executable, "-c", ECHO]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as echo:
        try:
            assert echo.stdout
            assert echo.stdout.readline() == b"ready\n"
            asked = execute("ip", "netns", "exec", bed.agent, sys.executable, "-c", ASK)
            assert asked.stdout == "whole\n", asked.stderr
        finally:
            echo.kill()


def test_changes_do_not_cut_the_links(bed: Bed) -> None:
    argv = ["ping", "-q", "-n", "-c", "200", "-i", "0.01", "-W", "1", SERVER4]
    with subprocess.Popen(
        ["ip", "netns", "exec", bed.agent, *argv], stdout=subprocess.PIPE, text=True
    ) as ping:
        for delay_ms in (10.0, 0.0, 30.0, 5.0, 0.0):
            bed.underlay.set(Quality(delay_ms=delay_ms))
        text = ping.communicate(timeout=30)[0]
    found = re.search(r"(\d+) received", text)
    assert found
    assert int(found[1]) >= 180


def test_a_dead_relay_is_replaced(bed: Bed) -> None:
    bed.underlay.set(Quality(delay_ms=5))
    netns = removal.namespace_id(removal.NETNS_ROOT / bed.plan.netns)
    (pid,) = removal.processes({netns})
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not removal.alive(pid), "the relay is dead")
    bed.underlay.set(Quality(delay_ms=7))
    assert bed.underlay.quality() == Quality(delay_ms=7)
    assert bed.best_ms(SERVER4) > 14 - SOON_MS


def test_a_host_port_may_go_down_and_up(bed: Bed) -> None:
    bed.underlay.set(Quality(delay_ms=2))
    port = bed.plan.agents[0].port.host
    for state in ("down", "up"):
        execute("ip", "-n", bed.agent, "link", "set", port, state)
    wait_until(lambda: bed.received(SERVER4, 1), "the port works again")


def test_a_neighbour_can_be_added_to_the_bridge(bed: Bed) -> None:
    """Tests put attackers there; hosts send to them at once and hear them after the delay."""
    bed.underlay.set(Quality(delay_ms=20))
    bridge = ["ip", "-n", bed.plan.netns, "address"]
    execute(*bridge, "add", "192.0.2.250/24", "dev", bed.plan.bridge)
    try:
        assert 20 - SOON_MS < bed.best_ms("192.0.2.250") < 20 + SLACK_MS
    finally:
        execute(*bridge, "delete", "192.0.2.250/24", "dev", bed.plan.bridge)
