"""Figures of a history, and the forms in which they are written."""

import math
from pathlib import Path
from typing import Any

import pytest

from wgmap.errors import ConfigError
from wgmap_chaos.history.history import History
from wgmap_chaos.history.records import Call, Contact, Fault, Flow, Late, Op, Outcome, Run
from wgmap_chaos.judges import all as judges
from wgmap_chaos.report import figures, ledger, writing

RUN = Run(
    command="wgmap-chaos run --seed 7",
    commit="abc",
    seed=7,
    servers=3,
    agents=2,
    lights=9,
    minutes=1,
    begun=100.0,
    staleness_s=1,
    converge_s=30,
    push_s=2,
    data_grace_s=5,
    grown_mb=50,
    grown_fds=20,
)


def call(op: Op, begun: float, took: float | None) -> Call:
    outcome = Outcome.UNKNOWN if took is None else Outcome.OK
    ended = None if took is None else begun + took
    return Call(who="l1", op=op, key="10.66.200.1", outcome=outcome, begun=begun, ended=ended)


def fault(name: str, begun: float, healed: float) -> Fault:
    times: dict[str, Any] = {"begun": begun, "effective": begun, "healing": healed}
    return Fault(name=name, targets=("ms1",), healed=healed, **times)


@pytest.fixture
def history() -> History:
    made = History()
    for at in (101.0, 102.0, 103.0, 107.5, *range(108, 120, 2), 120.0, 121.0):
        made.add(call(Op.LOOKUP, at - 0.01, 0.01))
    made.add(call(Op.LOOKUP, 104.0, None))
    made.add(call(Op.REGISTER, 102.0, 0.5))
    made.add(Contact(source="a1", target="a2", begun=104.0, took_s=None))
    ends: dict[str, Any] = {"source": "a1", "target": "a2", "begun": 100.0, "ended": 130.0}
    lost = (90.0, *(104.0 + number / 10 for number in range(10)), 110.0)
    made.add(Flow(name="f", interval_s=0.1, sent=300, gaps=((104.0, 105.1),), lost=lost, **ends))
    made.add(fault("kill", 103.5, 106.0))
    made.add(fault("kill", 120.2, 120.4))
    made.add(RUN)
    return made


def test_gaps_of_faults(history: History) -> None:
    first, second = figures.gaps(history)
    assert first.lookups == pytest.approx(4.5)
    assert first.contacts == math.inf
    assert first.flows == pytest.approx(1.0)
    assert (first.registers, second.contacts, second.flows) == (None, None, 0.0)
    assert second.lookups == pytest.approx(1.0)
    (both,) = figures.summaries([first, second])
    assert both.times == 2
    assert both.gaps["lookups"] == pytest.approx((2.75, 4.5))


def test_faults_that_come_together_have_no_gaps_of_their_own(history: History) -> None:
    history.add(fault("move", 120.3, 122.0))
    (alone,) = figures.gaps(history)
    assert alone.lookups == pytest.approx(4.5)


def test_what_the_next_fault_does_is_no_gap_of_the_one_before(history: History) -> None:
    history.add(fault("move", 106.5, 107.5))
    first, _, move = figures.gaps(history)
    assert first.lookups == pytest.approx(4.5)  # it began in the first
    assert move.lookups == pytest.approx(4.5)


def test_where_there_are_probes_their_calls_alone_tell_gaps(history: History) -> None:
    history.runs[0] = RUN.model_copy(update={"probes": True})
    for at in (103.0, 103.6, 104.0, 106.5):
        history.add(call(Op.LOOKUP, at - 0.01, 0.01).model_copy(update={"who": "p1"}))
    history.add(Late(who="probe of lookup", at=104.0, by_s=0.3))
    history.add(Late(who="probe of lookup", at=90.0, by_s=9.0))  # before the fault
    first, second = figures.gaps(history)
    assert first.lookups == pytest.approx(2.5)
    assert first.late == 0.3
    assert (second.lookups, second.late) == (None, 0.0)


def test_latencies_and_rates(history: History) -> None:
    lookups, registers = figures.latencies(history)
    assert (lookups.calls, lookups.unanswered) == (13, 1)
    assert registers.quantiles_ms == pytest.approx((500.0,) * 4)
    assert figures.rates(history.of(Op.REGISTER), 100.0, 1.0) == [(0.0, 0), (1.0, 0), (2.0, 1)]


def test_page_and_summary_say_the_same(history: History, tmp_path: Path) -> None:
    writing.write(history, judges.judge(history), tmp_path)
    summary = (tmp_path / writing.SUMMARY).read_text()
    page = (tmp_path / writing.PAGE).read_text()
    for text in ("wgmap-chaos run --seed 7", "linearizability", "seed 7", "kill"):
        assert text in summary
        assert text in page
    assert "| kill | 2 | 0.00 / 0.00 | 2.75 / 4.50 |" in summary
    assert "never / never" in summary
    assert "data:image/png;base64," in page
    assert (tmp_path / writing.PLOT).read_bytes().startswith(b"\x89PNG")


def test_tables_of_many_runs_are_made_of_what_is_kept_of_each(
    history: History, tmp_path: Path
) -> None:
    writing.write(history, judges.judge(history), tmp_path)
    kept = ledger.read([tmp_path / ledger.NAME] * 2)
    table = writing.run_table(kept)
    assert table.count("| abc | 7 | 3 | 2 | 1 | 0 | 2 | 14 |") == 2
    assert "staleness: not tested" in table
    assert "| kill | 4 | 0.00 / 0.00 | 2.75 / 4.50 |  |  | never / never |" in writing.gap_table(
        kept
    )
    assert not kept[0].held
    broken = ledger.entry(history, (), "no effect within 60 s")
    assert "broke off: no effect within 60 s |" in writing.run_table([broken])
    assert not broken.held
    (tmp_path / "wrong").write_text("{}\n")
    with pytest.raises(ConfigError, match="wrong, line 1"):
        ledger.read([tmp_path / "wrong"])
    with pytest.raises(ConfigError, match="No such file"):
        ledger.read([tmp_path / "absent"])
