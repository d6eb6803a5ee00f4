"""A short share of the failover measurements (make bench-failover: all of them, with figures)."""

import pytest

from support.lab import Lab, wait_until
from support.reconfigure import reconfigured
from wgmap_chaos.failover.faults import FAULTS
from wgmap_chaos.failover.ground import Ground, Measured, last_heard_s

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(180)]

CONTACTS = 4
FIRST_CONTACT_MS = 1000.0
UNANSWERED_S = 3.0
CASES = [("killed", 0), ("killed", 20), ("black-holed", 20), ("stopped", 0), ("slow", 20)]


@pytest.fixture
def ground(lab: Lab) -> Ground:
    return Ground(lab.directory)


def check(measured: Measured) -> None:
    assert measured.lost == 0, measured
    assert max(one for one in measured.after if one is not None) < FIRST_CONTACT_MS, measured


@pytest.mark.parametrize(("fault", "delay_ms"), CASES)
def test_no_contact_is_lost_with_the_preferred_server(
    lab: Lab, ground: Ground, fault: str, delay_ms: int
) -> None:
    with lab.underlay(delay_ms=delay_ms):
        measured = ground.measure(fault, delay_ms, CONTACTS)
    check(measured)
    if measured.heard_s is not None:
        first, later = measured.heard_s
        assert later >= first + 0.9  # the dead one is not said to be heard


@pytest.mark.parametrize("delay_ms", [0, 20])
def test_one_server_of_three_is_enough_for_contacts(
    lab: Lab, ground: Ground, delay_ms: int
) -> None:
    with lab.underlay(delay_ms=delay_ms):
        check(ground.measure_two(delay_ms, CONTACTS))


def test_the_status_prefers_no_server_on_hope(lab: Lab, ground: Ground) -> None:
    """A server that says nothing loses its place, and is not called heard until it is."""
    ground.settle()
    agent = lab.file.agents[0]
    server = ground.preferred(agent)
    with FAULTS["stopped"](lab.directory, lab.file, server):
        other = lab.file.agents[1]
        lab.forget(agent, other)
        assert lab.ping(agent, other) is not None
        wait_until(
            lambda: ground.preferred(agent).name != server.name,
            "another one is preferred",
        )
        wait_until(lambda: last_heard_s(agent, server) > 2, "its silence is told")
    wait_until(lambda: last_heard_s(agent, server) < 2, "it is heard again", 30.0)


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
async def test_without_any_server_tunnels_go_on_and_strangers_are_refused(
    lab: Lab, ground: Ground, family: int
) -> None:
    """The refusal comes after the configured time and not before: until then it is held."""
    agents = lab.file.agents[:1]
    with reconfigured(lab, agents, agent={"unanswered_s": UNANSWERED_S}):
        alone = await ground.without_any(family, UNANSWERED_S + 1, UNANSWERED_S)
        assert alone.flow_lost == 0, alone
        assert alone.refused_after_s is not None
        assert UNANSWERED_S * 0.9 < alone.refused_after_s < UNANSWERED_S + 5
