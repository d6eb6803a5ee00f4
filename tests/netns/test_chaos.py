"""Chaos over the whole product, short and seeded; ``make chaos`` runs it for long."""

from pathlib import Path

import pytest

from wgmap_chaos.history import file
from wgmap_chaos.judges import all as judges
from wgmap_chaos.whole import run
from wgmap_chaos.whole.cli import text
from wgmap_chaos.whole.scenario import FaultsSection, LoadSection, RunSection, Scenario

pytestmark = [
    pytest.mark.netns,
    pytest.mark.slow,
    pytest.mark.timeout(500),
]
MAIN = (
    *("kill the leader", "kill all servers", "the power goes", "stop the leader"),
    *("kill a responder", "cut the leader off", "kill an agent", "both ends move"),
    *("a clock jumps", "twice and in disorder"),
)
MOST_LEFT_OUT = 3  # by a machine that is slow


def test_every_promise_is_put_to_the_test_and_holds(tmp_path: Path) -> None:
    scenario = Scenario(
        run=RunSection(seed=1, minutes=1.5),
        load=LoadSection(lights=60, askers=8, probes=10, rotations=0.1),
        faults=FaultsSection(kinds=MAIN, hold_s=(1.0, 3.0), calm_s=(0.5, 1.5)),
    )
    history = file.read(run.run(scenario, tmp_path / "out", "tests/netns/test_chaos.py"))
    verdicts = judges.judge(history)
    assert all(one.held for one in verdicts), text(verdicts)
    assert len({fault.name for fault in history.faults}) >= len(MAIN) - MOST_LEFT_OUT
