"""Freshness under pauses and cuts, in a cluster of five: judged on what was really heard.

Processes are stopped at any moment, so also between the check of a lease and the answer. The old
leader is cut off together with a follower: both hear of a leader, and neither has a quorum.
``WGMAP_LONG=1`` (``make test-promises``) goes on for minutes.
"""

import logging
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from support.lab import Lab, running_lab, wait_until
from support.voice import silenced
from support.watching import Watching, watching
from wgmap_chaos.lab import observation
from wgmap_chaos.lab.inventory import ServerEntry

LONG = bool(os.environ.get("WGMAP_LONG"))
pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(3600 if LONG else 200)]
TURNS = 30 if LONG else 1
STALENESS_S = 1.0
_LOG = logging.getLogger(__name__)
ROLES = (("responder",), ("replica",), ("responder", "replica"))


@pytest.fixture
def five(tmp_path: Path) -> Iterator[Lab]:
    with running_lab(tmp_path, "--servers", "5", "--agents", "1") as lab:
        yield lab


@contextmanager
def stopped(server: ServerEntry, *roles: str) -> Iterator[None]:
    """Stop processes of a server, and let them go on."""
    pids = observation.server_pids(server.netns, server.state_dir)
    with ExitStack() as undo:
        for role in roles:
            pid = pids[role]
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            undo.callback(os.kill, pid, signal.SIGCONT)
        yield


def leader(watch: Watching) -> ServerEntry:
    """Return who leads; asked of whichever server answers."""

    def name() -> str | None:
        found = [watch.lab.status(one)["leader"] for one in watch.servers[:2]]
        return found[0] if len(set(found)) == 1 else None

    return watch.lab.file.server(wait_until(name, "there is a leader"))


def pauses(watch: Watching, rng: random.Random) -> None:
    """Stop processes for moments, and some for longer than any lease."""
    for roles in ROLES:
        victim = rng.choice(watch.servers)
        with stopped(victim, *roles):
            time.sleep(STALENESS_S * 1.4)  # the fault itself, not a wait for anything
        for _ in range(6):
            with stopped(rng.choice(watch.servers), *rng.choice(ROLES)):
                time.sleep(rng.uniform(0.01, 0.25))
    with stopped(leader(watch), "responder", "replica"):
        time.sleep(STALENESS_S * 1.6)


def cut_off(watch: Watching, rng: random.Random) -> None:
    """Cut the leader off together with a follower; on and off, one of them sleeps as well."""
    old = leader(watch)
    other = rng.choice([one for one in watch.servers if one != old])
    registered = watch.last[0]
    with watch.cut(old, other):
        time.sleep(1.2)
        with stopped(old, *rng.choice(ROLES)):
            time.sleep(1.2)
        wait_until(lambda: watch.last[0] > registered + 2, "the other three go on without them")
        time.sleep(0.6)
    wait_until(
        lambda: all(one["fresh"] for one in watch.lab.status()["servers"]), "all are fresh again"
    )


def test_what_is_said_with_authority_is_never_older_than_the_bound(five: Lab, base: int) -> None:
    rng = random.Random(7)
    with silenced(five, "a1") as agent:
        with watching(five, agent, base) as watch:
            for _ in range(TURNS):
                pauses(watch, rng)
                cut_off(watch, rng)
        assert watch.history.broken(STALENESS_S) == []
        counts = watch.history.counts()
        _LOG.info("%d cuts; %s", len(watch.history.cuts), counts)
        assert len(watch.history.cuts) == TURNS
        assert counts["registers"] > 20 * TURNS
        assert counts["answers of servers that were cut off"] > 20 * TURNS
        assert counts["authoritative"] > counts["answers"] / 2
        # The judge can tell: with a tenth of the bound the same history breaks the promise.
        assert watch.history.broken(STALENESS_S / 100)
