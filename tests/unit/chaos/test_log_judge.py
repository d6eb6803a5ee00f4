"""The judge of the log's chaos runs finds each kind of broken promise, and nothing else."""

import pytest

from wgmap_chaos.logchaos.judge import Final, History, Read, Verdict, Write, judge
from wgmap_chaos.logchaos.ledger import Ledger, put

HELD = [(0, 1), (1, 1), (0, 2)]


def history() -> History:
    """Return a run in which all is well."""
    made = History()
    made.writes = [
        Write(0, 1, 1.0, 2.0, "applied"),
        Write(1, 1, 1.0, 9.0, "unknown"),
        Write(0, 2, 3.0, 5.0, "applied"),
        Write(0, 3, 6.0, 7.0, "not applied"),
    ]
    made.reads = [
        Read("ms1", 1.5, 2.5, {}),  # the write of 1 was not acknowledged when it began
        Read("ms2", 2.1, 2.6, {0: 1}),
        Read("ms1", 3.1, 4.0, {0: 2, 1: 1}),  # one that is under way may be seen
        Read("ms3", 5.1, 6.0, {0: 2, 1: 1}),
    ]
    made.finals = [Final(name, 7, "d", list(HELD)) for name in ("ms1", "ms2", "ms3")]
    return made


def broken(made: History) -> set[str]:
    verdict = judge(made)
    kinds = ("lost", "undead", "doubled", "diverged", "stale", "early")
    found = {kind for kind in kinds if getattr(verdict, kind)}
    assert bool(verdict.examples) == bool(found)
    assert verdict.broken == sum(getattr(verdict, kind) for kind in kinds)
    return found


def test_a_run_without_fault_is_found_so() -> None:
    assert judge(history()) == Verdict(0, 0, 0, 0, 0, 0)


def test_an_acknowledged_write_that_one_server_lacks_is_lost() -> None:
    made = history()
    made.finals[1] = Final("ms2", 7, "d", HELD[:2])
    assert broken(made) == {"lost"}


def test_an_unknown_write_may_be_missing() -> None:
    made = history()
    made.reads = []
    made.finals = [Final("ms1", 7, "d", [(0, 1), (0, 2)])]
    assert not broken(made)


def test_what_was_said_not_to_be_applied_must_not_be_there() -> None:
    made = history()
    made.finals[0] = Final("ms1", 7, "d", [*HELD, (0, 3)])
    assert broken(made) == {"undead"}


def test_nothing_is_applied_twice() -> None:
    made = history()
    made.finals[0] = Final("ms1", 7, "d", [*HELD, (0, 2)])
    assert broken(made) == {"doubled"}


def test_servers_that_differ_at_the_end_or_in_between_have_diverged() -> None:
    made = history()
    made.finals[2] = Final("ms3", 7, "other", HELD)
    assert broken(made) == {"diverged"}

    made = history()
    made.sight("ms1", 5, "a")
    made.sight("ms2", 5, "a")
    assert not broken(made)
    made.sight("ms2", 5, "b")
    assert broken(made) == {"diverged"}


@pytest.mark.parametrize(
    "read",
    [
        Read("ms2", 5.1, 6.0, {0: 1, 1: 1}),  # misses what was acknowledged at 5.0
        Read("ms2", 4.1, 4.5, {0: 2}),  # misses what a read saw at 4.0
    ],
)
def test_a_read_that_misses_what_was_there_before_it_is_stale(read: Read) -> None:
    made = history()
    made.reads.append(read)
    assert broken(made) == {"stale"}


def test_a_read_of_what_nobody_has_proposed_yet_is_early() -> None:
    made = history()
    made.reads.append(Read("ms2", 2.7, 2.9, {0: 2}))
    assert "early" in broken(made)


def test_a_run_of_which_no_server_tells_anything_is_no_proof() -> None:
    with pytest.raises(ValueError, match="no server told"):
        judge(History())


def test_a_ledger_is_the_same_after_a_snapshot() -> None:
    one, other = Ledger(), Ledger()
    for index in range(1, 6001):
        one.apply(index, put(index % 3, index))
    other.restore(iter(one.snapshot()))
    assert (other.index, other.digest, other.best) == (one.index, one.digest, one.best)
    assert [tuple(entry) for entry in other.entries] == one.entries
    one.apply(6001, put(0, 1))
    other.apply(6001, put(0, 1))
    assert other.digest == one.digest
