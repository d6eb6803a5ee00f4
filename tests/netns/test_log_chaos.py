"""Chaos for the replicated log, short and seeded; ``make chaos-log`` runs it for long."""

import pytest

from wgmap_chaos.logchaos.run import Report, run

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(200)]


def test_three_servers_keep_every_promise_under_faults() -> None:
    report = run(3, seed=1, seconds=25)
    assert report.verdict.broken == 0, report.text()
    assert report.writes["applied"] > 100
    assert report.reads > 50
    assert sum(report.faults.values()) >= 3


@pytest.mark.parametrize(("plant", "kind"), [("early-ack", "lost"), ("local-read", "stale")])
def test_a_promise_that_is_broken_on_purpose_is_noticed(plant: str, kind: str) -> None:
    report = _until_noticed(plant, kind)
    assert getattr(report.verdict, kind) > 0, report.text()


def _until_noticed(plant: str, kind: str) -> Report:
    """Run with other seeds if need be: whether a fault hurts is a matter of luck."""
    report = run(3, seed=2, seconds=8, plant=plant)
    for seed in (3, 4):
        if getattr(report.verdict, kind):
            break
        report = run(3, seed, seconds=8, plant=plant)
    return report
