"""Settings for all tests."""

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# What a test asks is never how fast the machine is: a busy one fails nothing.
settings.register_profile("wgmap", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("wgmap")


def pytest_configure() -> None:
    """Have fixtures take down what they made also when the run is told to end."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs namespaces where we are not root."""
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="needs root for network namespaces")
    for item in items:
        if item.get_closest_marker("netns"):
            item.add_marker(skip)
