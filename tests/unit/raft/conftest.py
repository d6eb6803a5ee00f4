"""Rigs stop the library's clock; start it again."""

from collections.abc import Iterator

import pytest

from wgmap import clock
from wgmap_cluster.raft import library


@pytest.fixture(autouse=True)
def _real_clock_after() -> Iterator[None]:
    yield
    library.use_clock(clock.now)
