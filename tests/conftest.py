"""Settings for all tests."""

import os
import signal
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# What a test asks is never how fast the machine is: a busy one fails nothing.
settings.register_profile("wgmap", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("wgmap")


def pytest_configure() -> None:
    """Have fixtures take down what they made also when the run is told to end."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


# Two processes may run the tests side by side (`-n 2`): one all that is about real time, in turn,
# so that session fixtures are made once and nothing measures beside another that does; the other
# all else, which gives way.
_REAL_TIME = ("tests/netns/", "tests/cluster/test_overload.py")
NICE = 5


def is_in_real_time(nodeid: str) -> bool:
    """Say which of the two processes runs a test."""
    return nodeid.startswith(_REAL_TIME)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Have each of the two groups run as one, by one process."""
    from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415  # absent where it is not used

    class TwoGroups(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
        def _split_scope(self, nodeid: str) -> str:
            return "real time" if is_in_real_time(nodeid) else "else"

    return TwoGroups(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs namespaces where we are not root."""
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="needs root for network namespaces")
    for item in items:
        if item.get_closest_marker("netns"):
            item.add_marker(skip)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let the process of all else give way to the other one."""
    if hasattr(item.config, "workerinput") and not is_in_real_time(item.nodeid):
        _give_way()


@cache
def _give_way() -> None:
    os.nice(NICE)
