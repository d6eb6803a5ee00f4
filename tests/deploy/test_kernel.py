"""Which WireGuard a host gets, and what its units say then: the kernel's, or wireguard-go.

The host is this machine, its ``modprobe`` a script. The play runs with ``--check``, and writes the
units alone, into a directory of the test's own.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from support.control_host import ControlHost, Done, needs_ansible

pytestmark = [pytest.mark.timeout(120), needs_ansible]
AGENT, SERVER = "wgmap-agent.service", "wgmap-server.service"
AT_BOOT = "Load it at every start of the machine"
ROLE = "wgmap.rollout.common"
ROLES = Path(__file__).parents[2] / "deploy/ansible/roles"


def play(directory: Path, wireguard: str, modprobe: int) -> Done:
    """Have the role choose, and write the units that follow from it."""
    (directory / "bin").mkdir()
    script = directory / "bin/modprobe"
    script.write_text(f"#!/bin/sh\necho asked >{directory}/asked\nexit {modprobe}\n")
    script.chmod(0o755)
    units: list[dict[str, Any]] = [
        {
            "ansible.builtin.template": {
                "src": f"{ROLES}/{role}/templates/{unit}.j2",
                "dest": f"{directory}/{unit}",
            },
            "check_mode": False,
            "vars": {"ansible_managed": "", "common_bin": "/opt/wgmap/current/bin"},
        }
        for role, unit in (("agent", AGENT), ("map_server", SERVER))
    ]
    book = {
        "hosts": "all",
        "gather_facts": False,
        "environment": {"PATH": f"{directory}/bin:/usr/bin:/bin:/usr/sbin:/sbin"},
        "vars_files": [f"{ROLES}/{role}/defaults/main.yml" for role in ("agent", "map_server")],
        "vars": {
            "common_wireguard": wireguard,
            "common_wheelhouse": "dist/wgmap-wheelhouse-0.1.0-cp311-linux_x86_64.tar",
            "common_overlay": ["10.66.0.0/16"],
        },
        "tasks": [
            {"ansible.builtin.include_role": {"name": ROLE, "tasks_from": "machine"}},
            *units,
        ],
    }
    (directory / "book.yml").write_text(json.dumps([book]))
    here = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
    (directory / "hosts.yml").write_text(json.dumps({"all": {"hosts": {"ms1": here}}}))
    control = ControlHost(directory)
    control.make()
    return control.run("ansible-playbook", "--check", "-i", "hosts.yml", "book.yml")


def of_task(played: Done, name: str) -> str:
    """Return what was printed of one task."""
    return played.output.partition(f" : {name}]")[2].partition("TASK [")[0]


@pytest.mark.parametrize("wireguard", ["auto", "kernel"])
def test_a_kernel_that_has_it_is_used(tmp_path: Path, wireguard: str) -> None:
    played = play(tmp_path, wireguard, 0)
    assert played.code == 0, played.output
    assert "changed: [ms1]" in of_task(played, AT_BOOT)
    for unit in (AGENT, SERVER):
        assert "Wants=wgmap-wg@" not in (tmp_path / unit).read_text()


@pytest.mark.parametrize(("wireguard", "modprobe"), [("auto", 1), ("userspace", 0)])
def test_wireguard_go_is_used_otherwise(tmp_path: Path, wireguard: str, modprobe: int) -> None:
    played = play(tmp_path, wireguard, modprobe)
    assert played.code == 0, played.output
    assert (tmp_path / "asked").exists() == (wireguard == "auto")
    assert "skipping: [ms1]" in of_task(played, AT_BOOT)
    for unit in (AGENT, SERVER):
        assert "Wants=wgmap-wg@wgm-ctl.service" in (tmp_path / unit).read_text()


def test_a_kernel_that_must_have_it_and_has_not_is_named(tmp_path: Path) -> None:
    played = play(tmp_path, "kernel", 1)
    assert played.code == 2, played.output
    assert "common_wireguard: the kernel of ms1 has no WireGuard" in played.output
