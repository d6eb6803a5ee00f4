"""What is not used goes: keepalives, idle peers, peers that never answered; on both sides."""

from collections.abc import Iterator

import pytest

from support.lab import Lab, wait_until
from support.reconfigure import reconfigured
from wgmap_chaos.contacts.faults import DATA_PORT
from wgmap_chaos.lab.inventory import AgentEntry
from wgmap_chaos.losses import Loss, losing

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(180)]

IDLE_S = 4.0
PENDING_S = 5.0
# Readings of the device while nothing is to be done, and what a busy machine adds.
SLACK_S = 12.0


@pytest.fixture
def pair(lab: Lab) -> Iterator[tuple[AgentEntry, AgentEntry]]:
    """Two agents that forget soon."""
    agents = lab.file.agents[2:4]
    with reconfigured(lab, agents, agent={"idle_s": IDLE_S, "pending_s": PENDING_S}):
        one, other = lab.file.agents[2:4]
        for agent in lab.file.agents:
            for peer in (one, other):
                if agent.name != peer.name:
                    lab.forget(agent, peer)
        yield one, other


def peers(lab: Lab, agent: AgentEntry) -> list[str]:
    return lab.run(agent.netns, "wg", "show", agent.data_interface, "peers").split()


def keepalives(lab: Lab, agent: AgentEntry) -> list[str]:
    told = lab.run(agent.netns, "wg", "show", agent.data_interface, "persistent-keepalive")
    return told.split()[1::2]


def routes(lab: Lab, agent: AgentEntry) -> list[str]:
    found = []
    for family in ("-4", "-6"):
        argv = ["ip", family, "route", "show", "dev", agent.data_interface]
        found += lab.run(agent.netns, *argv).splitlines()
    return [line for line in found if line.startswith(("10.66.", "fd66:"))]


def counter(lab: Lab, agent: AgentEntry, name: str) -> int:
    value: int = lab.agent_status(agent)["counters"].get(name, 0)
    return value


def test_idle_peers_go_on_both_sides_and_come_back(
    lab: Lab, pair: tuple[AgentEntry, AgentEntry]
) -> None:
    one, other = pair
    assert lab.ping(one, other) is not None
    for agent in pair:
        wait_until(lambda a=agent: keepalives(lab, a) == ["off"], "the keepalive is cleared")  # type: ignore[misc]
        # No packet waits for it, so it is made a moment after the first reply.
        wait_until(lambda a=agent: len(routes(lab, a)) == 2, "both are routed")  # type: ignore[misc]
    for agent in pair:
        wait_until(lambda a=agent: not peers(lab, a), "it goes", IDLE_S + SLACK_S)  # type: ignore[misc]
        assert routes(lab, agent) == []
        assert lab.agent_status(agent)["peers"] == []
        assert counter(lab, agent, "peer.idle_removed") == 1
    assert lab.ping(one, other) is not None


def test_keepalives_are_no_traffic(lab: Lab, pair: tuple[AgentEntry, AgentEntry]) -> None:
    one, other = pair
    assert lab.ping(one, other) is not None
    wait_until(lambda: keepalives(lab, one) == ["off"], "the keepalive is cleared")
    [key] = peers(lab, one)
    argv = ["wg", "set", one.data_interface, "peer", key, "persistent-keepalive", "1"]
    lab.run(one.netns, *argv)
    for agent in pair:
        wait_until(lambda a=agent: not peers(lab, a), "it goes", IDLE_S + SLACK_S)  # type: ignore[misc]


def test_traffic_keeps_peers(lab: Lab, pair: tuple[AgentEntry, AgentEntry]) -> None:
    one, other = pair
    assert lab.ping(one, other) is not None
    count = str(int((IDLE_S + 4) / 0.5))
    lab.run(one.netns, "ping", "-q", "-n", "-i", "0.5", "-c", count, str(other.eids[0]))
    for agent in pair:
        assert len(peers(lab, agent)) == 1
        assert counter(lab, agent, "peer.idle_removed") == 0


def test_peers_that_never_answer_go(lab: Lab, pair: tuple[AgentEntry, AgentEntry]) -> None:
    one, other = pair
    dead = Loss(other.netns, other.underlay_port, f"udp dport {DATA_PORT}", 1 << 20)
    with losing(dead) as losses:
        assert lab.ping(one, other, wait_s=0.5) is None
        assert len(peers(lab, one)) == 1
        assert routes(lab, one) == []  # before it stands, what is sent to it comes to the agent
        for agent in pair:
            wait_until(lambda a=agent: not peers(lab, a), "it goes", PENDING_S + SLACK_S)  # type: ignore[misc]
            assert routes(lab, agent) == []
        assert losses.lost()[0] > 0
        for agent in pair:
            assert counter(lab, agent, "peer.never_stood") == 1
        assert counter(lab, one, "now.held_packets") == 0
    assert lab.ping(one, other) is not None
