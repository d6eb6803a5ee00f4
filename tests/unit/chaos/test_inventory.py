import ipaddress
import json
from pathlib import Path

import pytest

from wgmap.errors import NotFoundError
from wgmap_chaos.lab import census, inventory
from wgmap_chaos.lab.errors import LabError
from wgmap_chaos.lab.inventory import Inventory
from wgmap_chaos.lab.topology import plan

CONTROL = ipaddress.IPv6Address("fd77:676d:6170::abcd")


@pytest.fixture
def planned(tmp_path: Path) -> Inventory:
    """A lab of which nothing runs: every pid is null."""
    return census.take(plan(tmp_path, 3, 2), {"a1": CONTROL, "a2": CONTROL})


def test_the_file_has_the_fields_that_others_rely_on(planned: Inventory, tmp_path: Path) -> None:
    path = tmp_path / "lab.json"
    inventory.write(path, planned)
    document = json.loads(path.read_text())
    assert set(document) == {"servers", "agents", "underlay_bridge"}
    assert set(document["underlay_bridge"]) == {"netns", "name"}
    server = document["servers"][0]
    lab = plan(tmp_path, 3, 2)
    assert server == {
        "name": "ms1",
        "netns": lab.servers[0].netns,
        "underlay": "192.0.2.1",
        "control": "fd77:676d:6170::1",
        "mesh": "fd77:676d:6d65::1",
        "underlay_port": lab.servers[0].port.host,
        "control_interface": lab.servers[0].control_interface,
        "mesh_interface": lab.servers[0].mesh_interface,
        "pids": {"supervisor": None, "replica": None, "responder": None},
        "wireguard": {
            lab.servers[0].control_interface: None,
            lab.servers[0].mesh_interface: None,
        },
        "state_dir": str(tmp_path / "state/ms1"),
        "admin_socket": str(lab.paths.socket("ms1")),
        "config": str(tmp_path / "config/ms1.toml"),
    }
    agent = document["agents"][1]
    assert agent == {
        "name": "a2",
        "netns": lab.agents[1].netns,
        "underlay": ["192.0.2.12", "2001:db8:6::12"],
        "underlay_port": lab.agents[1].port.host,
        "control": str(CONTROL),
        "eids": ["10.66.2.1", "fd66::2"],
        "data_interface": lab.agents[1].data_interface,
        "control_interface": lab.agents[1].control_interface,
        "tun": lab.agents[1].tun,
        "pids": {"agent": None},
        "wireguard": {lab.agents[1].control_interface: None, lab.agents[1].data_interface: None},
        "state_dir": str(tmp_path / "state/a2"),
        "socket": str(lab.paths.socket("a2")),
        "config": str(tmp_path / "config/a2.toml"),
    }


def test_what_was_written_is_read_again(planned: Inventory, tmp_path: Path) -> None:
    path = tmp_path / "lab.json"
    inventory.write(path, planned)
    assert inventory.read(path) == planned
    assert [entry.name for entry in tmp_path.iterdir()] == ["lab.json"]


def test_hosts_are_found_by_name(planned: Inventory) -> None:
    assert planned.server("ms3").name == "ms3"
    assert planned.agent("a2").name == "a2"
    with pytest.raises(NotFoundError, match="no server 'a2'"):
        planned.server("a2")


def test_a_missing_file_is_no_lab(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no lab in"):
        inventory.read(tmp_path / "lab.json")


@pytest.mark.parametrize("text", ["", "{}", '{"servers": [], "agents": [], "more": 1}'])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lab.json"
    path.write_text(text)
    with pytest.raises(LabError, match=r"lab\.json"):
        inventory.read(path)
