"""One set of machines for all tests of the rollout, which go from empty machines to none.

They take their turns on the same machines, in the order of their files: each begins with what the
one before it left. ``make test-rollout`` runs them; `make test` does not.
"""

import logging
import os
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from rollout import releases
from rollout.fleet import Fleet
from rollout.site import Site
from wgmap import __version__

FAILED = pytest.StashKey[bool]()
LOG = logging.getLogger(__name__)
collect_ignore_glob = [] if os.environ.get("WGMAP_ROLLOUT") else ["test_*.py"]


@pytest.fixture(scope="session")
def wheelhouses(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a release, and the one after it."""
    directory = tmp_path_factory.mktemp("releases")
    now, after = (releases.build(one, directory) for one in (__version__, releases.NEXT))
    return now, after


@pytest.fixture(scope="session")
def fleet(wheelhouses: tuple[Path, Path]) -> Iterator[Fleet]:
    """Boot the machines; what playbooks took is printed at the end."""
    began = time.monotonic()
    with Site() as site:
        fleet = Fleet(site, wheelhouses[0])
        LOG.info("machines booted after %.1f s", time.monotonic() - began)
        yield fleet
        for recap in fleet.recaps:
            LOG.info("%-16s %6.1f s  changed %s", recap.name, recap.took_s, recap.changed)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep what became of a test where its fixtures find it."""
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report


@pytest.fixture(autouse=True)
def left_in_order(request: pytest.FixtureRequest, fleet: Fleet) -> Iterator[None]:
    """Start again what a test that failed has left stopped, so that the next ones say something."""
    yield
    if request.node.stash.get(FAILED, False):
        fleet.mend()
