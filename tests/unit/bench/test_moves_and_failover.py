"""Moves and failover: how what was measured is judged and written."""

import csv
from pathlib import Path

import failover
import moves
from failover import Found
from moves import Case

from wgmap_chaos.failover.ground import Alone, Measured
from wgmap_chaos.moves.scenarios import SCENARIOS
from wgmap_chaos.moves.scenarios import Measured as Silence

KILLED = next(one for one in SCENARIOS if one.limit_s > 1)


def case(*wgmap_s: float, scenario: int = 0) -> Case:
    return Case(SCENARIOS[scenario], 20, 6, [Silence(at, 3.0) for at in wgmap_s])


def test_a_move_is_held_by_its_median_and_its_worst() -> None:
    assert case(0.02, 0.25, 0.9).held
    assert not case(0.02, 0.31, 0.9).held
    assert not case(0.02, 0.25, 1.1).held
    assert Case(KILLED, 0, 4, [Silence(1.5, None)]).held


def test_moves_are_written_a_trial_a_line(tmp_path: Path) -> None:
    found = [case(0.0171, 0.06), Case(KILLED, 0, 4, [Silence(0.1, None)])]
    lines = moves.table(found).splitlines()
    assert lines[2].endswith("| 20 ms | IPv6 | 39 ms | 60 ms | > 3 s | > 3 s | 2 |")
    assert lines[3].endswith("| 0 ms | IPv4 | 100 ms | 100 ms |  |  | 1 |")
    moves.write_csv(tmp_path / "moves.csv", found)
    with (tmp_path / "moves.csv").open() as file:
        rows = [[one["wgmap_s"], one["plain_s"]] for one in csv.DictReader(file)]
    assert rows == [["0.0171", "3.0000"], ["0.0600", "3.0000"], ["0.1000", ""]]
    moves.draw(tmp_path / "moves.png", found)
    assert (tmp_path / "moves.png").read_bytes()[:4] == b"\x89PNG"


def measured(fault: str, *after: float | None) -> Measured:
    return Measured(fault, 20.0, True, 60.0, [8.0, 8.0], list(after), (0.3, 1.3))


ALONE = Alone(4, 1300, 0, 10.0, 10.0)


def test_failover_is_held_where_nothing_is_lost_and_no_median_grows_too_much() -> None:
    assert Found([measured("killed", 9.0, 60.0), measured("two killed", 90.0)], [ALONE]).held
    assert not Found([measured("killed", 90.0)], [ALONE]).held
    assert not Found([measured("two killed", 9.0, None)], [ALONE]).held
    assert not Found([], [Alone(4, 1300, 1, 10.0, 10.0)]).held
    assert not Found([], [Alone(4, 1300, 0, None, 10.0)]).held


def test_first_contacts_are_written_one_a_line(tmp_path: Path) -> None:
    found = Found([measured("killed", 9.0, None)], [ALONE])
    text = failover.text(found, 2)
    assert "| killed **(beyond)** | 20 ms | yes | 8.0 ms | " in text
    assert "| 1 of 4 | 0.3 s, then 1.3 s |" in text
    assert "| IPv4 | 0 of 1300 lost | after 10.0 s | 10 s |" in text
    failover.write_csv(tmp_path / "failover.csv", found)
    with (tmp_path / "failover.csv").open() as file:
        rows = [(one["when"], one["took_ms"]) for one in csv.DictReader(file)]
    assert rows == [("before", "8.00"), ("before", "8.00"), ("after", "9.00"), ("after", "")]
    failover.draw(tmp_path / "failover.png", found)
    assert (tmp_path / "failover.png").read_bytes()[:4] == b"\x89PNG"
