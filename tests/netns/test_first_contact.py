"""The main job over real WireGuard: cold first contacts, none lost, none slow."""

import itertools

import pytest

from support.lab import Lab
from wgmap_chaos.lab.inventory import AgentEntry

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
    """Warm packets bypass the agent; the control: a cold one goes through it, and is counted."""
    source, target = lab.file.agents[:2]
    lab.forget(source, target)
    cold = captured(lab, source)
    assert lab.ping(source, target) is not None
    warm = captured(lab, source)
    assert warm > cold
    for _ in range(5):
        assert lab.ping(source, target) is not None
    assert captured(lab, source) == warm


def captured(lab: Lab, agent: AgentEntry) -> int:
    """Count what came out of the agent's TUN and was carried."""
    counters = lab.agent_status(agent)["counters"]
    return sum(counters.get(name, 0) for name in ("held.packets", "packet.late"))
