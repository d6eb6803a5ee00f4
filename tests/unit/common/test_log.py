"""The shape of log lines: one line each, nothing secret, whatever the values are."""

import io
import logging
from collections.abc import Iterator

import pytest

from wgmap import log
from wgmap.wg.keys import PrivateKey


@pytest.fixture(autouse=True)
def _restore_root() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def test_one_event_is_one_line_of_key_and_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    stream = io.StringIO()
    log.setup("wgmap-server", stream=stream)
    log.Log("replica").info("register taken", peer="a1", detail="two\nlines here", ttl=3)
    (line,) = lines(stream)
    assert line.endswith('info replica: register taken peer=a1 detail="two\\nlines here" ttl=3')
    assert "wgmap-server[" in line


def test_under_journald_the_priority_leads_and_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:123")
    stream = io.StringIO()
    log.setup("wgmap-server", stream=stream)
    log.Log("raft").warning("leader lost")
    log.Log("raft").error("disk full")
    assert lines(stream) == ["<4>raft: leader lost", "<3>raft: disk full"]


def test_secrets_are_not_written() -> None:
    private = PrivateKey.generate()
    text = log.render("made", {"private": private, "raw": private.reveal(), "key": private.public})
    assert private.encode() not in text
    assert "raw=<32-bytes>" in text.replace('"', "")
    assert str(private.public) in text


def test_debug_only_when_verbose_and_long_values_are_cut() -> None:
    stream = io.StringIO()
    log.setup("x", stream=stream)
    log.Log("a").debug("hidden")
    log.setup("x", verbose=True, stream=stream)
    log.Log("a").debug("shown", text="y" * 10_000)
    (line,) = lines(stream)
    assert "shown" in line
    assert len(line) < 1000


def test_control_characters_in_an_event_stay_on_one_line() -> None:
    assert log.render("bad\nevent\x1b[0m", {}) == "bad\\nevent\\u001b[0m"
