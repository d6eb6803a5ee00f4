"""Gaps while servers die: what is counted as one, and how it is written."""

import csv
from pathlib import Path

import gaps
import pytest
from agents.caller import Contacts
from gaps import CASES, Case

DIED, BACK = 100.0, 103.0


def times(*, silent: tuple[float, float]) -> list[float]:
    """Answers each 20 ms, from before the death on; none in between."""
    every = (98.5 + number * 0.02 for number in range(400))
    return [at for at in every if not silent[0] < at < silent[1]]


def case(name: str = "the leader", **more: object) -> Case:
    answers = {
        "lookups": times(silent=(DIED, DIED + 0.101)),
        "sure": times(silent=(DIED, DIED + 1.001)),
        "registers": times(silent=(DIED, BACK + 0.501)),
    }
    values: dict[str, object] = {"contacts": Contacts(9.5, [1.0, 2.0, 30.0], 1), **more}
    return Case(name, 20.0, DIED, BACK, answers, **values)  # type: ignore[arg-type]


def test_a_gap_is_the_longest_time_without_an_answer_from_the_death_on() -> None:
    one = case()
    assert [one.gap_ms(kind) for kind in gaps.KINDS] == pytest.approx([120, 1020, 3520], abs=21)
    assert one.after_back_ms("registers") == pytest.approx(500, abs=21)


def test_the_table_has_the_medians_and_the_worst_of_each_case() -> None:
    worse = Case("the leader", 20.0, DIED, BACK, case().answers | {"lookups": [99.9, 102.0]},
                 Contacts())  # fmt: skip
    text = gaps.table([case(), worse, case("nobody")])
    _, _, leader, nobody = text.splitlines()
    assert leader.startswith("| 20 ms | the leader | 2 | ")
    assert "| 2100 ms |" in leader
    assert leader.endswith("| 2.0 ms | 30 ms | 1 of 4 |")
    assert nobody.startswith("| 20 ms | nobody | 1 | ")


def test_a_case_in_which_nothing_came_is_told_as_well(tmp_path: Path) -> None:
    nothing = Case("a majority", 0.0, DIED, BACK, {kind: [] for kind in gaps.KINDS},
                   Contacts(9.5, [], 7))  # fmt: skip
    assert "| nan ms |" in gaps.table([nothing])
    gaps.write_csv(tmp_path / "gaps.csv", [case(), nothing])
    with (tmp_path / "gaps.csv").open() as file:
        one, other = csv.DictReader(file)
    assert (one["killed"], one["contacts"], one["contacts_lost"]) == ("the leader", "3", "1")
    assert (other["lookups_gap_ms"], other["contact_p50_ms"]) == ("nan", "nan")
    gaps.draw(tmp_path / "gaps.png", [case(name) for name in CASES])
    assert (tmp_path / "gaps.png").read_bytes()[:4] == b"\x89PNG"
