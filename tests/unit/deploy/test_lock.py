"""What hosts are installed from names everything that the package needs."""

import re
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]


def test_the_lock_pins_every_dependency_with_hashes() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = {_normal(re.split(r"[<>=]", one)[0]) for one in project["dependencies"]}
    lock = (REPOSITORY / "deploy/requirements.lock").read_text()
    entries = re.findall(r"^(\S+)==\S+ \\\n((?:    --hash=\S+(?: \\)?\n)+)", lock, re.MULTILINE)
    assert wanted <= {_normal(name) for name, _ in entries}
    assert len(entries) == len(re.findall(r"^\S+==", lock, re.MULTILINE))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
