"""A map server that cannot be reached stops nothing that another one can do.

The servers are this machine, but for the first one, and their ``wgmap`` is a script that notes what
it is asked.
"""

from pathlib import Path
from typing import Any

import pytest

from support.control_host import ControlHost, needs_ansible

pytestmark = [pytest.mark.timeout(120), needs_ansible]
SCRIPT = """#!/bin/sh
echo "$*" >> {asked}
echo '{{"servers": []}}'
"""


@pytest.fixture
def inventory(tmp_path: Path) -> dict[str, Any]:
    """Return three servers, the first of which is off."""
    program = tmp_path / "root/current/bin/wgmap"
    program.parent.mkdir(parents=True)
    program.write_text(SCRIPT.format(asked=tmp_path / "asked"))
    program.chmod(0o755)
    here = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
    off = {"ansible_host": "127.0.0.1", "ansible_port": 1}
    return {
        "all": {
            "vars": {
                "ansible_become": False,
                "common_root": str(tmp_path / "root"),
                "common_overlay": ["10.66.0.0/16"],
            },
            "children": {"map_servers": {"hosts": {"ms1": off, "ms2": here, "ms3": here}}},
        }
    }


def test_a_revocation_asks_a_server_that_lives(tmp_path: Path, inventory: dict[str, Any]) -> None:
    control = ControlHost(tmp_path)
    control.make()
    played = control.play(inventory, "revoke", "-e", "peer=a3")
    assert played.code == 0, played.output
    assert "peer revoke a3" in (tmp_path / "asked").read_text().splitlines()
