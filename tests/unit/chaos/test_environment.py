"""What daemons of a lab find in their environment, and the releases that they run by it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wgmap import __version__
from wgmap.errors import ConfigError
from wgmap_chaos.faults import releases
from wgmap_chaos.lab import environment, topology


def test_what_is_added_stays_until_it_is_changed(tmp_path: Path) -> None:
    paths = topology.paths(tmp_path)
    (tmp_path / "config").mkdir()
    assert environment.of(paths, "ms1") == dict(os.environ)
    environment.add(paths, "ms1", {})
    assert not paths.environment("ms1").exists()
    environment.add(paths, "ms1", {"ONE": "1", "TWO": "2"})
    environment.add(paths, "ms1", {"TWO": "3"})
    assert environment.added(paths, "ms1") == {"ONE": "1", "TWO": "3"}
    assert environment.of(paths, "ms1") == {**os.environ, "ONE": "1", "TWO": "3"}
    assert environment.added(paths, "ms2") == {}


def runs(release: Path | None) -> list[str]:
    """Return which version a program of a release is of, and where its server is from."""
    asked = "import wgmap, wgmap_cluster; print(wgmap.__version__, wgmap_cluster.__file__)"
    argv = [sys.executable, "-c", asked]
    added = releases.environment(release)
    done = subprocess.run(
        argv, env={**os.environ, **added}, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_the_other_release_says_that_it_is_another(tmp_path: Path) -> None:
    other = releases.make_other(tmp_path / "other")
    version, server = runs(other)
    assert version == releases.OTHER
    assert server.startswith(str(other))
    version, server = runs(None)
    assert version == __version__
    assert not server.startswith(str(other))


def test_a_commit_as_the_other_release(tmp_path: Path) -> None:
    if not (Path(releases.__file__).parents[3] / ".git").exists():
        pytest.skip("no checkout")
    other = releases.make_other(tmp_path / "other", "HEAD")
    assert runs(other)[0] == releases.OTHER
    with pytest.raises(ConfigError, match="no release 'nonsense'"):
        releases.make_other(tmp_path / "absent", "nonsense")
