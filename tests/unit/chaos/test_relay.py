import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgmap_chaos.lab import relay
from wgmap_chaos.lab.relay import QUEUE_FRAMES, Detour, Quality, RelayError, Wire


def wire(delay_ms: float = 0.0, loss_percent: float = 0.0, pairs: int = 2) -> Wire:
    return Wire(Quality(delay_ms, loss_percent), pairs, random.Random(1))


def test_a_frame_is_due_after_the_delay_and_not_before() -> None:
    one = wire(delay_ms=20)
    one.accept(100.0, 1, b"frame")
    assert one.next_due() == pytest.approx(100.020)
    assert list(one.due(100.0199)) == []
    assert list(one.due(100.0201)) == [(1, b"frame")]
    assert one.next_due() is None


def test_without_delay_frames_leave_at_once_and_in_order() -> None:
    one = wire()
    for number in range(10):
        one.accept(5.0, number % 2, bytes([number]))
    assert [frame[0] for _, frame in one.due(5.0)] == list(range(10))


@given(st.lists(st.floats(0, 1), max_size=50), st.floats(0, 1000))
def test_every_frame_comes_out_exactly_once(times: list[float], delay_ms: float) -> None:
    one = wire(delay_ms=delay_ms)
    for number, now in enumerate(sorted(times)):
        one.accept(now, number % 2, bytes([number]))
    assert Counter(frame[0] for _, frame in one.due(1.0 + delay_ms)) == Counter(range(len(times)))
    assert len(one) == 0


def test_the_share_that_is_lost_is_the_one_that_was_asked_for() -> None:
    one = wire(loss_percent=30)
    for _ in range(2000):
        one.accept(0.0, 0, b"")
    assert len(list(one.due(0.0))) + one.counters.lost == 2000
    assert one.counters.lost == pytest.approx(600, abs=80)


def test_all_and_nothing_can_be_lost() -> None:
    everything, nothing = wire(loss_percent=100), wire(loss_percent=0)
    for one in (everything, nothing):
        for _ in range(500):
            one.accept(0.0, 0, b"")
    assert (len(everything), len(nothing)) == (0, 500)


def test_so_many_come_twice_as_were_asked_for() -> None:
    one = Wire(Quality(duplicate_percent=20), 1, random.Random(1))
    for number in range(2000):
        one.accept(0.0, 0, number.to_bytes(2, "big"))
    came = Counter(frame for _, frame in one.due(0.0))
    assert len(came) == 2000
    assert set(came.values()) == {1, 2}
    assert sum(came.values()) - 2000 == one.counters.duplicated == pytest.approx(400, abs=80)


def test_a_copy_does_not_fit_into_a_full_queue() -> None:
    one = Wire(Quality(delay_ms=1000, duplicate_percent=100), 1, random.Random(1))
    for _ in range(QUEUE_FRAMES):
        one.accept(0.0, 0, b"")
    assert len(one) == QUEUE_FRAMES


def test_frames_that_are_late_by_chance_overtake_each_other() -> None:
    one, straight = Wire(Quality(10, jitter_ms=5), 1, random.Random(1)), wire(delay_ms=10)
    for number in range(100):
        for each in (one, straight):
            each.accept(number / 1000, 0, bytes([number]))
    assert list(one.due(0.0099)) == []
    came = [frame[0] for _, frame in one.due(1.0)]
    assert sorted(came) == list(range(100)) != came
    assert one.counters.overtaken > 0
    assert len(list(straight.due(1.0))) == 100
    assert straight.counters.overtaken == 0


def test_a_full_queue_drops_the_newest_of_that_pair_only() -> None:
    one = wire(delay_ms=1000)
    for number in range(QUEUE_FRAMES + 3):
        one.accept(0.0, 0, number.to_bytes(4, "big"))
    one.accept(0.0, 1, b"other")
    assert one.counters.overflowed == 3
    kept = list(one.due(2.0))
    assert len(kept) == QUEUE_FRAMES + 1
    assert kept[-2:] == [(0, (QUEUE_FRAMES - 1).to_bytes(4, "big")), (1, b"other")]
    one.accept(3.0, 0, b"again")
    assert len(one) == 1


def test_a_shorter_delay_applies_to_frames_that_come_later() -> None:
    one = wire(delay_ms=1000)
    one.accept(0.0, 0, b"slow")
    one.quality = Quality(delay_ms=10)
    one.accept(0.1, 0, b"fast")
    assert [frame for _, frame in one.due(0.2)] == [b"fast"]
    assert [frame for _, frame in one.due(1.0)] == [b"slow"]


def test_a_detour_is_one_way_to_one_address() -> None:
    one = wire(delay_ms=10)
    there, elsewhere = b"\x02" + bytes(5), b"\x04" + bytes(5)
    one.extra_ms[0, there] = 50.0
    for pair, frame in ((0, there + b"late"), (0, elsewhere), (1, there)):
        one.accept(0.0, pair, frame)
    assert list(one.due(0.0101)) == [(0, elsewhere), (1, there)]
    assert one.next_due() == pytest.approx(0.060)


@pytest.mark.parametrize(
    ("address", "extra_ms"), [("02:00:00:00:00:01", -1), ("02:00:00:00:00:01", 1e9), ("02:00", 5)]
)
def test_a_detour_that_is_none_is_refused(address: str, extra_ms: float) -> None:
    with pytest.raises(RelayError):
        Detour("eth0", address, extra_ms)


@pytest.mark.parametrize(
    ("delay_ms", "loss_percent"),
    [(-1, 0), (10_001, 0), (0, -0.1), (0, 100.1), (float("nan"), 0), (0, float("nan"))],
)
def test_impossible_qualities_are_refused(delay_ms: float, loss_percent: float) -> None:
    with pytest.raises(RelayError, match="must be 0 to"):
        Quality(delay_ms, loss_percent)
    with pytest.raises(RelayError, match="must be 0 to"):
        Quality(duplicate_percent=loss_percent, jitter_ms=delay_ms)


@pytest.mark.parametrize("arguments", [["--control", "x", "only-one"], ["a:b"]])
def test_usage_errors_end_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        relay.main(arguments)
    assert ended.value.code == 2
