"""The schedule says what a look at everything would say."""

from hypothesis import given
from hypothesis import strategies as st

from wgmap_agent.engine.schedule import Schedule

times = st.integers(0, 20).map(float)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 5), times),
        st.tuples(st.just("drop"), st.integers(0, 5), times),
        st.tuples(st.just("take"), st.just(0), times),
    ),
    max_size=40,
)


@given(steps)
def test_it_agrees_with_a_look_at_everything(plan: list[tuple[str, int, float]]) -> None:
    due: dict[int, float] = {}
    schedule: Schedule[int] = Schedule(due.get)
    for what, name, at in plan:
        if what == "set":
            due[name] = at
            schedule.note(name)
        elif what == "drop":
            due.pop(name, None)
        else:
            expected = {one for one, when in due.items() if when <= at}
            taken = schedule.take(at)
            assert set(taken) == expected
            assert len(taken) == len(expected)
            for one in taken:
                del due[one]
        assert schedule.next() == min(due.values(), default=None)


def test_a_time_that_moves_on_need_not_be_noted() -> None:
    due = {1: 5.0}
    schedule: Schedule[int] = Schedule(due.get)
    schedule.note(1)
    due[1] = 8.0
    assert schedule.take(6.0) == []
    assert schedule.next() == 8.0
