"""Two releases of the product that a lab's servers may run: what is here, and another one."""

import io
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

from wgmap import __version__
from wgmap.errors import ConfigError

PACKAGES = ("common", "cluster", "agent", "chaos")
OTHER = f"{__version__}+other"  # what servers of the other release say that they are
_ROOT = Path(__file__).parents[3]
_VERSION = re.compile(r'^__version__ = ".*"$', re.MULTILINE)


def make_other(directory: Path, reference: str = "") -> Path:
    """Write the other release into a directory: a commit of the checkout, or a copy of what runs.

    It says that it is ``OTHER``. Raises ConfigError where there is no such commit.
    """
    directory.mkdir()
    if reference:
        _unpack(reference, directory)
    else:
        for package in PACKAGES:
            shutil.copytree(_ROOT / package, directory / package)
    stamp = directory / "common/wgmap/__init__.py"
    stamp.write_text(_VERSION.sub(f'__version__ = "{OTHER}"', stamp.read_text()))
    return directory


def _unpack(reference: str, directory: Path) -> None:
    argv = ["git", "-C", str(_ROOT), "archive", reference, *PACKAGES]
    done = subprocess.run(argv, capture_output=True, check=False)
    if done.returncode:
        raise ConfigError(f"no release {reference!r}: {done.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(directory, filter="data")


def environment(release: Path | None) -> Mapping[str, str]:
    """Return what makes a program of wgmap run a release; None: the one that is here."""
    if release is None:
        return {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    return {"PYTHONPATH": ":".join(str(release / package) for package in PACKAGES)}
