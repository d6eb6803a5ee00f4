"""A short share of the moves; all of them, beside WireGuard alone: ``make bench-moves``."""

import pytest

from support.lab import Lab
from wgmap_chaos.moves.scenarios import SCENARIOS, Ground

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(120)]

LIMIT_S = 2.0  # of one trial on a busy machine; the targets are the benchmark's


@pytest.mark.parametrize("number", [1, 2], ids=lambda n: SCENARIOS[n].title)
async def test_a_flow_goes_on_after_a_move(lab: Lab, number: int) -> None:
    ground = Ground(lab.directory, window_s=LIMIT_S + 0.5)
    try:
        with lab.underlay(delay_ms=20):
            for family in (0, 1):
                measured = await ground.trial(SCENARIOS[number], family)
                assert measured.wgmap_s < LIMIT_S, f"IPv{(4, 6)[family]}"
    finally:
        await ground.one.home()
        await ground.two.home()
        await ground.ready()
