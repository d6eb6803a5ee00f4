"""The main job over real WireGuard: cold first contacts, none lost, none slow."""

import itertools

import pytest

from support.lab import Lab

pytestmark = [pytest.mark.netns, pytest.mark.slow]

CONTACTS = 100
LIMIT_MS = 1000.0


@pytest.mark.timeout(300)
@pytest.mark.parametrize("delay_ms", [0, 20])
def test_cold_first_contacts(lab: Lab, delay_ms: int) -> None:
    """One packet to a peer without a tunnel is answered, in either family, over every pair."""
    slow: list[str] = []
    with lab.underlay(delay_ms=delay_ms):
        pairs = itertools.cycle(itertools.permutations(lab.file.agents, 2))
        for turn, (source, target) in zip(range(CONTACTS), pairs, strict=False):
            lab.forget(source, target)
            eid = target.eids[(turn // 12 + turn) % 2]
            reply = lab.ping(source, target, eid=eid)
            if reply is None or reply > LIMIT_MS:
                slow.append(f"{turn}: {source.name} -> {eid}: {reply}")
    assert slow == []


def test_the_tunnel_then_stays_in_the_kernel(lab: Lab) -> None:
    """After first contact, packets bypass the agent: its counter of captured packets stands."""
    source, target = lab.file.agents[:2]
    assert lab.ping(source, target) is not None
    before = lab.agent_status(source)["counters"]["packets_captured"]
    for _ in range(5):
        assert lab.ping(source, target) is not None
    assert lab.agent_status(source)["counters"]["packets_captured"] == before
