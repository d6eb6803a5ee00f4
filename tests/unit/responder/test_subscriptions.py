"""Who was told of whom: what is over is let go of in small steps."""

from wgmap_cluster.responder.subscriptions import TIDIED, Subscription, Subscriptions

MOST = 10_000


class Watched(Subscriptions):
    """Counts what is looked at."""

    looked_at = 0

    def _is_held(self, one: Subscription) -> bool:
        self.looked_at += 1
        return super()._is_held(one)


def test_renewals_cost_a_few_looks_each_and_what_is_over_does_not_stay() -> None:
    told = Watched(MOST, MOST)
    for number in range(500):
        told.add(f"p{number}", "a1", 0.0, 100.0)
    worst = longest = 0
    for turn in range(1, 60):
        for number in range(500):
            before = told.looked_at
            told.add(f"p{number}", "a1", float(turn), 100.0 + turn)
            worst = max(worst, told.looked_at - before)
            longest = max(longest, len(told._order))  # that it is bounded is the point
    assert len(told) == 500
    assert 0 < worst <= TIDIED
    assert longest < 3 * 500


def test_those_that_are_over_at_the_end_of_the_order_are_found_as_well() -> None:
    told = Watched(MOST, MOST)
    for number in range(400):
        told.add(f"p{number}", "a1", 0.0, 1e9)
    longest = 0
    for turn in range(5000):  # one that is renewed again and again, behind many that stay
        told.add("busy", "a1", float(turn), 1e6 + turn)
        longest = max(longest, len(told._order))
    assert longest < 3 * 400
    assert told.told("p0", "a1", 10.0) is not None
    assert told.of("busy", 10.0) == ["a1"]
