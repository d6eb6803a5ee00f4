"""``make bench-pauses`` in small: what it says was done meanwhile was done, by a real server."""

import argparse

import pauses
import pytest
from pauses import PHASES
from stream.asked import ECHO, SERVER

OPTIONS = argparse.Namespace(
    peers=300, seconds=2.0, lookups=200.0, registers=100.0, snapshot_every=0.5
)
ASKED_FOR = {"lists", "pages", "looks", "events", "enrolled"}
TURNS = 5  # a machine that is busy gets to the last of them later


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_everything_that_is_to_go_on_beside_the_lookups_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pauses, "favour", lambda _: None)  # other tests are no other work
    monkeypatch.setenv("PYTHONPATH", "")  # the bench sets it for the server
    idle, alone, *_, busy = PHASES
    told: set[str] = set()
    registers = snapshots = 0
    with pauses.ground(OPTIONS) as bench:
        bench.warm()
        assert list(bench.run(idle, 0).streams) == [ECHO]
        for turn in range(TURNS):
            quiet, one = bench.run(alone, turn), bench.run(busy, turn)
            assert (quiet.registers, quiet.snapshots, quiet.operators) == (None, 0, {})
            for each in (quiet, one):
                assert len(each.streams[SERVER].due) == len(each.streams[ECHO].due) == 400
                assert each.streams[SERVER].took, "lookups are answered"
            assert one.registers is not None
            registers += one.registers.register.answered
            snapshots += one.snapshots
            told |= one.operators.keys()
            if told >= ASKED_FOR and snapshots > 1 and registers > 100:
                break
    assert told == ASKED_FOR  # and nothing was refused
    assert registers > 100
    assert snapshots > 1
