"""Settings for all tests."""

import os
import signal
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# What a test asks is never how fast the machine is: a busy one fails nothing.
settings.register_profile("wgmap", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("wgmap")


def pytest_configure() -> None:
    """Have fixtures take down what they made also when the run is told to end."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


# Two processes run the tests side by side (`-n 2 --dist loadgroup`): one all that has to do with real
# time, in turn, so that session fixtures are made once and nothing measures beside another that
# does; the other all else, which gives way.
REAL_TIME, ELSE = "real-time", "else"
_MEASURES = ("cluster/test_overload.py",)
NICE = 5


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which of the two processes runs a test; skip what needs root where we are not."""
    for item in items:
        group = REAL_TIME if _is_in_real_time(item) else ELSE
        item.add_marker(pytest.mark.xdist_group(group))
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="needs root for network namespaces")
    for item in items:
        if item.get_closest_marker("netns"):
            item.add_marker(skip)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let the process of all else give way to the other one."""
    if hasattr(item.config, "workerinput") and not _is_in_real_time(item):
        _give_way()


def _is_in_real_time(item: pytest.Item) -> bool:
    measures = item.path.relative_to(Path(__file__).parent).as_posix() in _MEASURES
    return measures or item.get_closest_marker("netns") is not None


@cache
def _give_way() -> None:
    os.nice(NICE)
