"""``make bench-pauses`` in small: what it says was done meanwhile was done, by a real server."""

import argparse

import pauses
import pytest
from pauses import PHASES
from stream.asked import ECHO, SERVER

OPTIONS = argparse.Namespace(
    peers=300, seconds=2.0, lookups=200.0, registers=100.0, snapshot_every=0.5
)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_everything_that_is_to_go_on_beside_the_lookups_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pauses, "favour", lambda _: None)  # other tests are no other work
    monkeypatch.setenv("PYTHONPATH", "")  # the bench sets it for the server
    with pauses.ground(OPTIONS) as bench:
        bench.warm()
        idle, alone, *_, busy = (bench.run(phase, 0) for phase in PHASES)
    assert list(idle.streams) == [ECHO]
    assert (alone.registers, alone.snapshots, alone.operators) == (None, 0, {})
    for one in (alone, busy):
        assert len(one.streams[SERVER].due) == len(one.streams[ECHO].due) == 400
        assert one.streams[SERVER].lost == one.streams[ECHO].lost == 0
    assert busy.registers is not None
    assert busy.registers.register.answered == 200
    assert busy.snapshots >= 2
    assert busy.operators.keys() >= {"lists", "pages", "looks", "events", "enrolled"}
    assert "refused" not in busy.operators
