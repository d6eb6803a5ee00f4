"""What is served first, and what is shed, when more comes in than can be served."""

from collections import Counter
from itertools import islice

from support.tables import request
from wgmap.lisp.codec import encode
from wgmap.lisp.messages import MapNotify, MapNotifyAck, MapRegister
from wgmap_cluster.responder.backlog import LATE_S, MOST_EACH, SHARE, Backlog, Rank

A1, A2 = ("fd77:676d:6170::1", 4342), ("fd77:676d:6170::2", 4342)
LOOKUP = request("10.66.2.1/32")
REFRESH = request("10.66.2.1/32", refresh=True)


def register(nonce: int) -> bytes:
    return encode(MapRegister(nonce, ()))


def backlog(most: int = 8) -> tuple[Backlog, Counter[str]]:
    counters: Counter[str] = Counter()
    return Backlog(counters, most), counters


def test_ranks() -> None:
    waiting, _ = backlog()
    for data in (LOOKUP, encode(MapNotifyAck(1, ())), b"", b"\x10", b"\xff"):
        assert waiting.rank(data, A1[0]) is Rank.LOOKUP
    assert waiting.rank(REFRESH, A1[0]) is Rank.REPETITION
    assert waiting.rank(register(5), A1[0]) is Rank.REGISTER


def test_a_register_is_a_repetition_once_it_was_acknowledged() -> None:
    waiting, _ = backlog()
    waiting.add(register(5), A1, 0.0)
    assert waiting.rank(register(5), A1[0]) is Rank.REGISTER  # it may have been lost
    waiting.acknowledged(A1[0], encode(MapNotify(5, ())))
    assert waiting.rank(register(5), A1[0]) is Rank.REPETITION
    assert waiting.rank(register(6), A1[0]) is Rank.REGISTER
    assert waiting.rank(register(5), A2[0]) is Rank.REGISTER


def test_lookups_come_before_new_registers_and_those_before_repetitions() -> None:
    waiting, _ = backlog()
    for data in (REFRESH, register(5), LOOKUP, REFRESH, register(6), LOOKUP):
        waiting.add(data, A1, 0.0)
    served = [each.data for each in islice(waiting.take(), 10)]
    assert served == [LOOKUP, LOOKUP, register(5), register(6), REFRESH, REFRESH]
    assert waiting.waiting == 0


def test_what_does_not_fit_is_shed_by_its_class_alone_and_counted() -> None:
    waiting, counters = backlog(most=2)
    for data in (*3 * [LOOKUP], *4 * [register(5)], *5 * [REFRESH]):
        waiting.add(data, A1, 0.0)
    assert counters == {"shed.lookup": 1, "shed.register": 2, "shed.repetition": 3}
    assert waiting.waiting == 6


def test_the_sources_of_a_class_take_turns() -> None:
    waiting, _ = backlog(most=1000)
    for _ in range(100):
        waiting.add(LOOKUP, A1, 0.0)
    for _ in range(2):
        waiting.add(LOOKUP, A2, 0.0)
    served = [each.source for each in islice(waiting.take(), 6)]
    assert served == [A1, A2, A1, A2, A1, A1]
    waiting.add(LOOKUP, A2, 0.0)
    assert [each.source for each in islice(waiting.take(), 2)] == [A1, A2]
    assert waiting.waiting == 95


def test_a_register_waits_for_no_lookup_of_the_same_source_beyond_its_class() -> None:
    waiting, _ = backlog(most=1000)
    for data in (register(5), LOOKUP, register(6), LOOKUP):
        waiting.add(data, A1, 0.0)
    served = [each.data for each in waiting.take()]
    assert served == [LOOKUP, LOOKUP, register(5), register(6)]


def test_one_source_fills_no_class() -> None:
    waiting, counters = backlog(most=2 * MOST_EACH)
    for _ in range(5 * MOST_EACH):
        waiting.add(LOOKUP, A1, 0.0)
    assert counters == {"shed.lookup": 4 * MOST_EACH}
    waiting.add(LOOKUP, A2, 0.0)
    assert waiting.waiting == MOST_EACH + 1
    assert [each.source for each in islice(waiting.take(), 2)] == [A1, A2]


def test_a_flood_of_lookups_leaves_a_share_to_both_later_classes() -> None:
    waiting, _ = backlog(most=1000)
    for data in (register(5), REFRESH):
        for _ in range(100):
            waiting.add(data, A1, 0.0)
    served: Counter[bytes] = Counter()
    for _ in range(20 * SHARE):
        waiting.add(LOOKUP, A2, 0.0)
        served.update(each.data for each in islice(waiting.take(), 1))
    assert served == {LOOKUP: 20 * (SHARE - 1), register(5): 10, REFRESH: 10}


def test_a_refresh_whose_barrier_came_is_before_those_that_have_to_ask_for_one() -> None:
    waiting, counters = backlog(most=3)
    for until in (None, None, None, 7.0, 7.0, 7.0, 7.0):
        waiting.add(REFRESH, A1, 0.0, until)
    waiting.add(LOOKUP, A2, 0.0)
    assert [each.until for each in waiting.take()] == [None, 7.0, 7.0, 7.0, None, None, None]
    assert counters == {"shed.confirmed": 1}


def test_what_waited_for_too_long_is_not_served_but_counted() -> None:
    waiting, counters = backlog()
    waiting.add(LOOKUP, A1, at=5.0)
    waiting.add(LOOKUP, A1, at=5.5)
    late = [waiting.is_late(each, 5.2 + LATE_S) for each in waiting.take()]
    assert late == [True, False]
    assert counters == {"shed.late": 1}


def test_a_refresh_whose_barrier_came_has_an_end_of_its_own() -> None:
    waiting, counters = backlog()
    waiting.add(REFRESH, A1, at=5.0, until=50.0)
    assert not waiting.is_late(next(waiting.take()), 6.0 + LATE_S)
    assert not counters
