"""Releases to roll out: wheelhouses, really built from the tree, each with a version of its own."""

import shutil
from pathlib import Path

from rollout import suites
from rollout.site import REPOSITORY
from wgmap import __version__

PARTS = (
    *("agent", "chaos", "cluster", "common", "deploy", "scripts"),
    *("pyproject.toml", "README.md", "LICENSE"),
)
NEXT = f"{__version__}.post1"
BUILD_S = 900


def build(version: str, directory: Path) -> Path:
    """Build the wheelhouse of a version from a copy of the tree; raises SiteError."""
    tree = directory / f"tree-{version}"
    tree.mkdir()
    for part in PARTS:
        source = REPOSITORY / part
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tree / part)
    module = tree / "common/wgmap/__init__.py"
    module.write_text(module.read_text().replace(__version__, version))
    built = suites.CHOSEN.build(tree, directory, BUILD_S)
    shutil.rmtree(tree)
    return built
