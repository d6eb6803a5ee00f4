"""The longest pause of lookups: what is counted as one, and the program that asks."""

import csv
import ipaddress
from itertools import islice
from pathlib import Path

import pauses
import pytest
from fleet.agents import Answers, Run
from lookups import servers
from pauses import PHASES, Turn
from stream import asked, operators
from stream.asked import ECHO, SERVER, Stream


def stream(*silent: tuple[float, float], lost: tuple[int, ...] = ()) -> Stream:
    """A question each 2 ms for a second; who answers is away at times, then answers all."""
    sent = [number * 0.002 for number in range(500)]

    def answered(at: float) -> float:
        return next((end for begin, end in silent if begin <= at < end), at) + 0.0001

    answers = [None if number in lost else answered(at) for number, at in enumerate(sent)]
    return Stream(sent, sent, answers)


def test_all_that_wait_for_one_answer_are_one_pause() -> None:
    one = stream((0.1, 0.15), (0.3, 0.319), (0.5, 0.53))
    assert one.pauses == 2
    assert one.long == 16 + 6  # those that were sent 20 ms and more before its end
    assert one.part(1.0) == pytest.approx(0.05, abs=0.002)
    assert one.part(0.5) == pytest.approx(0.0001, abs=1e-6)


def test_a_question_that_is_lost_counts_and_does_not_hide_what_comes_later() -> None:
    one = stream((0.9, 0.95), lost=(3,))
    assert (one.lost, one.pauses) == (1, 1)  # nobody knows what was within its second
    late = Stream([0.0, 2.0], [0.0, 2.0], [None, 2.03])
    assert (late.lost, late.long, late.pauses) == (1, 2, 2)


def test_what_was_sent_late_is_told_and_is_no_pause() -> None:
    due = [0.0, 0.002, 0.004]
    one = Stream(due, [0.0, 0.052, 0.052], [0.0001, 0.0521, 0.0522])
    assert (one.pauses, one.long) == (0, 0)
    assert one.late == pytest.approx([0.0, 0.048, 0.05])
    assert one.sender_gap == pytest.approx(0.052)


def test_nobody_answered_is_told_as_well() -> None:
    nobody = Stream([0.0, 0.002], [0.0, 0.002], [None, None])
    assert nobody.part(0.5) != nobody.part(0.5)  # not a number
    assert (nobody.lost, nobody.long, nobody.pauses) == (2, 2, 1)


def test_the_program_asks_both_at_one_pace_and_keeps_what_came(tmp_path: Path) -> None:
    for sources in (servers.SOURCES, asked.SOURCES):
        servers.build(tmp_path, sources)
    with servers.in_c(tmp_path, "echo") as echo, servers.in_c(tmp_path, "echo") as other:
        _wait_for(tmp_path, echo.port, other.port)
        here = (servers.ADDRESS, echo.port)
        nobody, answered = asked.ask(
            tmp_path, (servers.ADDRESS, 0), here, seconds=0.3, a_second=1000, hosts=10
        )
        assert not nobody.due
        assert len(answered.due) == 300
        assert answered.lost == 0
        assert answered.seconds == pytest.approx(0.299)
        assert answered.late[0] >= 0
        assert answered.took[0] > 0
        # An echo is no Map-Reply: what is asked as the server must answer as one.
        wrong, right = asked.ask(
            *(tmp_path, (servers.ADDRESS, other.port), here), seconds=0.05, a_second=1000, hosts=10
        )
        assert (wrong.lost, right.lost) == (50, 0)


def _wait_for(folder: Path, *ports: int) -> None:
    """Wait until the programs in C listen."""
    for port in ports:
        for _ in range(100):
            _, heard = asked.ask(
                *(folder, (servers.ADDRESS, 0), (servers.ADDRESS, port)),
                seconds=0.01, a_second=100, hosts=1,
            )  # fmt: skip
            if not heard.lost:
                break
        else:
            raise AssertionError(f"nobody listens on port {port}")


def turn(number: int, phase: pauses.Phase, *silent: tuple[float, float]) -> Turn:
    streams = {ECHO: stream()} | ({SERVER: stream(*silent)} if phase.lookups else {})
    answers = Answers(1000, 990, 0, 2.0, 9.0, 30.0 + number)
    run = Run(1.0, 0.1, 0.1, answers, answers) if phase.registers else None
    told = {"lists": 2, "events": 100} if phase.operators else {}
    shares = {SERVER: 0.05, ECHO: 0.001, "replica": 0.5}
    return Turn(phase, number, dict(sorted(streams.items())), run, 3, told, shares)


def test_the_tables_have_the_medians_the_worst_and_what_was_done_meanwhile(tmp_path: Path) -> None:
    found = [turn(0, one, (0.1, 0.15)) for one in PHASES] + [turn(1, one) for one in PHASES]
    lines = pauses.table(found).splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line]
    idle = next(row for row in rows if row[:2] == ["idle", "echo"])
    busy = next(row for row in rows if row[:2] == ["and the admin API", "responder"])
    assert idle[8:10] == ["0", "0"]
    assert busy[7:11] == ["50.10", "16", "1", "0.501"]
    meanwhile = rows[-1]
    assert meanwhile[:6] == ["and the admin API", "992", "2.0", "9.0", "31", "20"]
    assert meanwhile[6:] == ["6", "50%", "200 events, 4 lists"]
    pauses.write_csv(tmp_path / "pauses.csv", found)
    with (tmp_path / "pauses.csv").open() as file:
        written = list(csv.DictReader(file))
    assert len(written) == 2 * (2 * len(PHASES) - 1)
    assert {one["pauses"] for one in written if one["asked"] == "echo"} == {"0"}
    pauses.draw(tmp_path / "pauses.png", found)
    assert (tmp_path / "pauses.png").read_bytes()[:4] == b"\x89PNG"


def test_operators_enrol_nobody_twice() -> None:
    made = [peer for number in (1, 2) for peer in islice(operators.new_peers(number), 500)]
    assert len({peer["name"] for peer in made}) == 1000
    assert len({str(peer["prefixes"]) for peer in made}) == 1000
    mine = ipaddress.ip_network("127.128.0.0/9")
    assert all(ipaddress.ip_address(str(peer["control_address"])) in mine for peer in made)
