"""The judge of freshness notices every promise that is broken."""

from wgmap_chaos.judges.freshness import Acknowledged, Answered, Cut, History

S = 1.0


def history(*answered: Answered, acknowledged: tuple[Acknowledged, ...] = ()) -> History:
    one = Acknowledged(1, "ms1", 9.9, 10.0)
    two = Acknowledged(2, "ms1", 19.9, 20.0)
    return History([one, two, *acknowledged], list(answered))


def test_a_good_history_is_good() -> None:
    good = history(
        Answered(1, "ms2", 20.5, 20.6, authoritative=True),  # within the bound
        Answered(2, "ms2", 20.7, 20.8, authoritative=True),
        Answered(2, "ms2", 25.0, 29.0, authoritative=True),
        Answered(1, "ms3", 30.0, 30.1, authoritative=False),  # says itself that it may be old
        Answered(2, "ms1", 20.0, 20.1, authoritative=True, refresh=True),
    )
    good.cuts.append(Cut(frozenset({"ms3"}), 28.0, 40.0))
    assert good.broken(S) == []
    assert good.counts()["authoritative"] == 4
    assert good.counts()["answers of servers that were cut off"] == 1


def test_a_sure_answer_that_is_older_than_the_bound() -> None:
    bad = history(Answered(1, "ms2", 21.1, 21.2, authoritative=True))
    assert bad.broken(S) == ["an answer of ms2 at 21.100: 1, not 2"]
    assert bad.broken(1.2) == []


def test_a_refresh_that_misses_what_was_acknowledged_just_before() -> None:
    bad = history(Answered(1, "ms2", 20.001, 20.1, authoritative=True, refresh=True))
    assert bad.broken(S) == ["a refresh of ms2 at 20.001: 1, not 2"]


def test_a_server_that_goes_back() -> None:
    bad = history(
        Answered(2, "ms2", 20.0, 20.1, authoritative=True),
        Answered(1, "ms2", 20.2, 20.3, authoritative=False),
        Answered(1, "ms3", 20.2, 20.3, authoritative=False),
    )
    assert bad.broken(S) == ["ms2 went back to 1 at 20.200"]


def test_a_server_that_says_something_while_it_is_cut_off() -> None:
    cut = Cut(frozenset({"ms3"}), 30.0, 40.0)
    late = Acknowledged(2, "ms3", 31.2, 31.3)
    bad = history(Answered(2, "ms3", 31.1, 31.2, authoritative=True), acknowledged=(late,))
    bad.cuts.append(cut)
    assert bad.broken(S) == [
        "ms3 was cut off, and sure of 2 at 31.100",
        "ms3 was cut off, and acknowledged 2",
    ]
    # Before its bound is over it may go on, and after the cut as well.
    in_time = Acknowledged(2, "ms3", 30.9, 31.5)
    good = history(Answered(2, "ms3", 31.0, 31.2, authoritative=True), acknowledged=(in_time,))
    good.cuts.append(cut)
    assert good.broken(S) == []
