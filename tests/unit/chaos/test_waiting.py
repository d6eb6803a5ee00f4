import pytest

from wgmap_chaos.lab.errors import LabError
from wgmap_chaos.lab.waiting import SCALE_VARIABLE, Deadline


def test_a_scale_stretches_and_shrinks(monkeypatch: pytest.MonkeyPatch) -> None:
    for scale, least, most in (("0.001", 0.0, 0.02), ("10", 190.0, 200.0)):
        monkeypatch.setenv(SCALE_VARIABLE, scale)
        assert least <= Deadline(20.0).remaining <= most


def test_what_takes_away_has_its_time_on_any_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    for scale, least, most in (("0.001", 19.0, 20.0), ("10", 190.0, 200.0)):
        monkeypatch.setenv(SCALE_VARIABLE, scale)
        assert least <= Deadline(20.0, may_shrink=False).remaining <= most


def test_what_did_not_happen_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SCALE_VARIABLE, "0.001")
    with pytest.raises(LabError, match="not within 0 s: the end"):
        Deadline(0.1).wait(lambda: False, lambda: "the end", poll_s=0.0)
    assert Deadline(0.1).wait(lambda: 7, lambda: "never") == 7
    monkeypatch.setenv(SCALE_VARIABLE, "-1")
    with pytest.raises(LabError, match="a number from 0 to 1000"):
        Deadline(1.0)
