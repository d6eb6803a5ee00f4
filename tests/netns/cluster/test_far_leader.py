"""A leader that is further away from the others than they are from each other."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.lab import Lab, running_lab, wait_until
from wgmap import clock
from wgmap_chaos.lab.observation import admin_get

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(180)]

WATCH_S = 6.0


@pytest.mark.parametrize("one_way_ms", [20, 150])
def test_followers_stay_fresh_with_a_leader_that_is_far_away(three: Lab, one_way_ms: int) -> None:
    """A lease of 1 s, and an answer of the leader takes four times the way.

    Asked again before the answer had come, they were never fresh.
    """
    wait_until(lambda: _fresh(three), "all servers fresh")
    leader, *_ = (s["name"] for s in three.status()["servers"] if s["state"] == "leader")
    with _far(three, leader, one_way_ms):
        wait_until(lambda: _fresh(three), "all servers fresh, far from the leader")
        end, looks = clock.now() + WATCH_S, list[dict[str, bool]]()
        while clock.now() < end:
            looks.append(_fresh_by_name(three))
            time.sleep(0.05)
        assert three.status()["leader"] == leader
    lost = [look for look in looks if not all(look.values())]
    assert len(looks) > 10
    assert len(lost) <= len(looks) // 4, lost  # a busy machine delays a renewal now and then


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("lgfar"), "--agents", "1") as running:
        yield running


@contextmanager
def _far(lab: Lab, name: str, one_way_ms: int) -> Iterator[None]:
    others = [server.name for server in lab.file.servers if server.name != name]
    pairs = [(name, other) for other in others] + [(other, name) for other in others]
    for one, other in pairs:
        lab.chaos("divert", one, other, str(one_way_ms))
    yield
    for one, other in pairs:
        lab.chaos("divert", one, other, "0")


def _fresh_by_name(lab: Lab) -> dict[str, bool]:
    """Return what each server says of itself."""
    found = {}
    for server in lab.file.servers:
        status = admin_get(server.admin_socket, "/v1/status")  # a program starts too slowly
        states = {each["name"]: each for each in status["servers"]} if status else {}
        found[server.name] = states[server.name]["fresh"]
    return found


def _fresh(lab: Lab) -> bool:
    return all(_fresh_by_name(lab).values())
