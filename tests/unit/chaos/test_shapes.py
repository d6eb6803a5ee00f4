"""Shapes of cuts, and the order in which faults come."""

from itertools import islice
from random import Random

import pytest

from wgmap.errors import ConfigError
from wgmap_chaos.faults import catalogue, shapes
from wgmap_chaos.whole.scenario import FaultsSection

FIVE = ("ms1", "ms2", "ms3", "ms4", "ms5")


def hears(cuts: set[tuple[str, str]], one: str) -> set[str]:
    return {other for other in FIVE if other != one and (other, one) not in cuts}


def test_each_shape_leaves_what_it_should() -> None:
    assert hears(shapes.around("ms1", FIVE), "ms1") == set()
    assert hears(shapes.around("ms1", FIVE), "ms2") == {"ms3", "ms4", "ms5"}
    assert hears(shapes.deaf("ms1", FIVE), "ms1") == set()
    assert "ms1" in hears(shapes.deaf("ms1", FIVE), "ms2")
    assert "ms1" not in hears(shapes.mute("ms1", FIVE), "ms2")
    assert hears(shapes.mute("ms1", FIVE), "ms1") == set(FIVE[1:])
    assert hears(shapes.ring(FIVE), "ms1") == {"ms2", "ms5"}
    assert hears(shapes.halves(FIVE[:2], FIVE), "ms2") == {"ms1"}
    assert hears(shapes.bridge(FIVE), "ms1") == set(FIVE[1:])
    assert hears(shapes.bridge(FIVE), "ms2") == {"ms1", "ms3"}


def test_a_ring_of_three_parts_two() -> None:
    assert shapes.ring(FIVE[:3]) == {("ms1", "ms3"), ("ms3", "ms1")}


def test_kinds_are_chosen_by_name_and_size() -> None:
    assert [kind.name for kind in catalogue.choose(["kill the leader"], 3, 2)] == [
        "kill the leader"
    ]
    assert len(catalogue.choose([], 5, 3)) == len(catalogue.KINDS)
    assert "bridge of servers" not in {kind.name for kind in catalogue.choose([], 3, 3)}
    with pytest.raises(ConfigError, match="no fault is called 'nonsense'"):
        catalogue.choose(["nonsense"], 3, 2)
    with pytest.raises(ConfigError, match="none of these faults is possible with 1 servers"):
        catalogue.choose(["kill the leader"], 1, 2)


def test_the_same_seed_brings_the_same_faults_and_each_comes_in_turn() -> None:
    def names(seed: int) -> list[tuple[str, ...]]:
        kinds = catalogue.choose([], 5, 3)
        found = islice(catalogue.order(kinds, Random(seed), 0.5), len(kinds))
        return [tuple(kind.name for kind in each) for each in found]

    assert names(7) == names(7) != names(8)
    assert {each[0] for each in names(7)} == {kind.name for kind in catalogue.KINDS}
    assert any(len(each) == 2 for each in names(7))


def test_two_at_once_are_of_two_areas() -> None:
    kinds = catalogue.choose([], 5, 3)
    for together in islice(catalogue.order(kinds, Random(1), 1.0), 200):
        assert len({kind.area for kind in together}) == len(together) == 2


def test_a_scenario_is_checked() -> None:
    with pytest.raises(ValueError, match="hold_s"):
        FaultsSection(hold_s=(3.0, 1.0))
