"""The samples of a server's last hour: differences of counters, and what nothing is known of."""

import pytest

from wgmap.metrics.families import Histogram
from wgmap_cluster.replica.history import MAX_SAMPLES, History
from wgmap_cluster.replica.views import CountersView, no_counters


class Counting:
    """A server that has counted what the test says."""

    def __init__(self) -> None:
        self.took = Histogram((0.01, 0.02, 0.05))
        self.values: dict[str, int] = {}

    def __call__(self) -> CountersView:
        return no_counters() | {"responders": [{**self.values, **self.took.flat("introduction")}]}


def test_introductions_are_those_since_the_last_sample() -> None:
    counting = Counting()
    history = History(counting)
    for seconds in (0.004, 0.015, 0.016, 0.04):
        counting.took.observe(seconds)
    counting.values["introduction.unheard"] = 3
    history.take()
    history.take()
    first, second = history.samples()
    assert (first["introduction_p50_s"], first["introduction_p99_s"]) == (0.02, 0.05)
    rate, unheard = first["introductions_per_s"], first["introductions_unheard_per_s"]
    assert unheard == 3 / 4 * rate > 0
    assert (second["introduction_p50_s"], second["introductions_per_s"]) == (None, 0.0)


def test_a_responder_that_was_started_anew_counts_from_nothing() -> None:
    counting = Counting()
    history = History(counting)
    counting.values = {"request.received": 1000}
    history.take()
    counting.values = {"request.received": 10}
    history.take()
    assert 0 < history.samples()[1]["lookups_per_s"] < history.samples()[0]["lookups_per_s"]


def test_it_keeps_an_hour() -> None:
    history = History(Counting())
    for _ in range(MAX_SAMPLES + 1):
        history.take()
    assert len(history.samples()) == MAX_SAMPLES


def test_only_what_came_since_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 15.0, 20.0, 25.0])
    monkeypatch.setattr("wgmap_cluster.replica.history.now", lambda: next(times))
    history = History(Counting())
    assert history.samples(7) == []
    for _ in range(3):
        history.take()
    numbers = [one["number"] for one in history.samples()]
    assert numbers == [15_000, 20_000, 25_000]
    assert [one["number"] for one in history.samples(15_000)] == numbers[1:]
    assert history.samples(25_000) == []
    assert history.samples(25_001) == history.samples(), "the host was booted"
