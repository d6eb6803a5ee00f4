"""The whole log in virtual time. A failure names its seed: python -m support.raftsim --seed N."""

from collections.abc import Iterator

import pytest

from support.raftsim.world import simulate
from wgmap import clock
from wgmap_cluster.raft import library


@pytest.fixture(autouse=True)
def _real_clock_after() -> Iterator[None]:
    yield
    library.use_clock(clock.now)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1, 101, 10))
def test_three_servers_lose_nothing(first: int) -> None:
    runs = [simulate(seed) for seed in range(first, first + 10)]
    assert sum(run.counts["applied"] for run in runs) > 1000
    assert sum(run.counts["reads"] for run in runs) > 200
    assert sum(run.counts["restores"] for run in runs) > 10


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1, 21, 5))
def test_five_servers_lose_nothing(first: int) -> None:
    runs = [simulate(seed, count=5) for seed in range(first, first + 5)]
    assert sum(run.counts["applied"] for run in runs) > 500


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 5])
def test_answers_to_questions_beside_the_log_are_to_those_questions(count: int) -> None:
    """Over restarts of who asks, too, and frames that come twice and late."""
    runs = [simulate(seed, count, asking=True) for seed in range(1, 9)]
    assert sum(run.counts["told"] for run in runs) > 150
    assert sum(run.counts["applied"] for run in runs) > 1000


@pytest.mark.parametrize("count", [1, 2])
def test_one_and_two_servers_lose_nothing(count: int) -> None:
    runs = [simulate(seed, count=count) for seed in range(1, 6)]
    assert sum(run.counts["applied"] for run in runs) > 250


def test_a_seed_always_gives_the_same_run() -> None:
    one, two = simulate(7, steps=300), simulate(7, steps=300)
    assert one.counts == two.counts
    assert one.applied == two.applied
