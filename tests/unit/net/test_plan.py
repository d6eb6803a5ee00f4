"""Differences between what is wanted and what is there."""

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from wgmap.net.plan import Route, difference, route_difference

EID = ipaddress.ip_address("10.66.1.1")
NET = ipaddress.ip_network("10.66.2.0/24")

routes = st.builds(
    Route,
    prefix=st.sampled_from([NET, ipaddress.ip_network("fd66::/64")]),
    interface=st.sampled_from(["a", "b"]),
    source=st.none() | st.just(EID),
    metric=st.integers(0, 1),
)


@given(st.lists(st.integers(0, 9)), st.lists(st.integers(0, 9)))
def test_applying_the_difference_makes_what_is_wanted(wanted: list[int], have: list[int]) -> None:
    change = difference(wanted, have)
    assert set(have) - set(change.delete) | set(change.add) == set(wanted)
    assert not set(change.add) & set(have)
    assert bool(change) == (set(wanted) != set(have))


@given(st.lists(routes, max_size=8), st.lists(routes, max_size=8))
def test_routes_end_as_the_kernel_would_have_them(wanted: list[Route], have: list[Route]) -> None:
    present = {route.identity: route for route in have}
    change = route_difference(wanted, present.values())
    for route in change.delete:
        del present[route.identity]
    for route in change.add:
        present[route.identity] = route
    assert present == {route.identity: route for route in wanted}


def test_a_changed_source_replaces_and_does_not_delete() -> None:
    before, after = Route(NET, "d"), Route(NET, "d", source=EID)
    change = route_difference([after], [before])
    assert (change.add, change.delete) == ((after,), ())


def test_nothing_to_do_is_false() -> None:
    assert not route_difference([Route(NET, "d")], [Route(NET, "d")])
