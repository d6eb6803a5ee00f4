"""Fixtures of the tests that need network namespaces."""

import pytest

from support.backends import BACKENDS
from support.lab import lab
from wgmap.wg.device import Backend

__all__ = ["backend", "lab"]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Run a test with each WireGuard backend that this machine has."""
    made: Backend = request.param
    return made
