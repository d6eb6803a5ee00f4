"""Runs Ansible of the environment that ``make`` gives it, with the collection of this tree."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
PROGRAMS = REPOSITORY / ".venv-rollout/bin"

needs_ansible = pytest.mark.skipif(
    not (PROGRAMS / "promtool").exists(), reason="`make .venv-rollout/.stamp` makes its programs"
)


@dataclass(frozen=True)
class Done:
    """What a program ended with."""

    code: int
    output: str


@dataclass(frozen=True)
class ControlHost:
    """A directory that Ansible runs in."""

    directory: Path

    def make(self) -> None:
        """Put the collection where Ansible looks for it."""
        folder = self.directory / "ansible_collections/wgmap"
        folder.mkdir(parents=True)
        (folder / "rollout").symlink_to(REPOSITORY / "deploy/ansible")

    def play(self, inventory: dict[str, Any], name: str, *arguments: str) -> Done:
        """Run a playbook of the collection."""
        path = self.directory / "inventory.yml"
        path.write_text(json.dumps(inventory))
        return self.run("ansible-playbook", "-i", str(path), f"wgmap.rollout.{name}", *arguments)

    def run(self, program: str, *arguments: str) -> Done:
        """Run one of its programs."""
        done = subprocess.run(
            [PROGRAMS / program, *arguments],
            env=os.environ
            | {
                "ANSIBLE_COLLECTIONS_PATH": str(self.directory),
                "ANSIBLE_HOME": str(self.directory / "home"),
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_LOCALHOST_WARNING": "false",
            },
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
        )
        return Done(done.returncode, done.stdout + done.stderr)
