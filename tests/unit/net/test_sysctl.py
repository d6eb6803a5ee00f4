"""Kernel settings."""

import errno
from pathlib import Path

import pytest

from wgmap.net import sysctl
from wgmap.net.errors import NetworkError


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sysctl, "ROOT", tmp_path)
    folder = tmp_path / "net" / "wg0.5"
    folder.mkdir(parents=True)
    (folder / "forwarding").write_text("1\n")
    return folder


def test_writes_and_reads_back(tree: Path) -> None:
    sysctl.write("net", "wg0.5", "forwarding", value=0)
    assert (tree / "forwarding").read_text() == "0\n"
    assert sysctl.read("net", "wg0.5", "forwarding") == "0"


def test_what_is_there_already_is_not_written(tree: Path) -> None:
    (tree / "forwarding").chmod(0o444)
    before = (tree / "forwarding").stat().st_mtime_ns
    sysctl.write("net", "wg0.5", "forwarding", value="1")
    assert (tree / "forwarding").stat().st_mtime_ns == before


def test_a_missing_setting_is_named(tree: Path) -> None:
    with pytest.raises(NetworkError, match="sysctl net/none: No such file") as caught:
        sysctl.write("net", "none", value=1)
    assert caught.value.errno == errno.ENOENT


@pytest.mark.parametrize("part", ["..", "a/b", ""])
def test_a_part_cannot_leave_the_tree(tree: Path, part: str) -> None:
    with pytest.raises(NetworkError):
        sysctl.read("net", part)
