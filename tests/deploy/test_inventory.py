"""A wrong inventory stops a playbook in its first seconds, before any host is asked anything.

The hosts of these inventories cannot be reached: a playbook that asked one would say so.
"""

from pathlib import Path
from typing import Any

import pytest

from support.control_host import ControlHost, needs_ansible

WHEELHOUSE = "wgmap-wheelhouse-0.1.0-cp311-linux_x86_64.tar"
NOWHERE = {"ansible_port": 1, "ansible_ssh_common_args": "-o ConnectTimeout=5"}  # of 127.0.0.1

pytestmark = [pytest.mark.timeout(120), needs_ansible]


def good(control: ControlHost) -> dict[str, Any]:
    """Return an inventory with nothing wrong; each address is this machine's."""
    agents = {f"a{n}": {"agent_prefixes": [f"10.66.{n}.1/32"]} for n in (1, 2)}
    return {
        "all": {
            "vars": {
                "ansible_host": "127.0.0.1",
                "common_wheelhouse": str(control.directory / WHEELHOUSE),
                "common_overlay": ["10.66.0.0/16"],
                **NOWHERE,
            },
            "children": {
                "map_servers": {"hosts": {f"ms{n}": {} for n in (1, 2, 3)}},
                "agents": {"hosts": agents},
            },
        }
    }


@pytest.fixture
def control(tmp_path: Path) -> ControlHost:
    """Return a control host with a wheelhouse."""
    made = ControlHost(tmp_path)
    made.make()
    (tmp_path / WHEELHOUSE).touch()
    return made


def test_a_good_inventory_goes_on_to_the_hosts(control: ControlHost) -> None:
    played = control.play(good(control), "deploy")
    assert played.code == 4, played.output  # unreachable
    assert "UNREACHABLE" in played.output


def wrong(path: str, value: Any) -> Any:
    """Name a change of the good inventory; None takes the variable away."""
    return pytest.param(path, value, id=f"{path.rpartition('.')[2]}={value}")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        wrong("all.vars.common_wheelhouse", None),
        wrong("all.vars.common_wheelhouse", f"gone/{WHEELHOUSE}"),
        wrong("all.vars.common_overlay", "10.66.0.0/16"),
        wrong("all.vars.common_wireguard", "both"),
        wrong("map_servers.ms2.map_server_endpoint", "ms2.example"),
        wrong("map_servers.ms2.map_server_raft_port", "many"),
        wrong("map_servers.ms2.map_server_mesh_port", 51822),  # the control port
        wrong("map_servers.ms2.map_server_staleness_s", 0),
        wrong("agents.a2.agent_prefixes", None),
        wrong("agents.a2.agent_prefixes", ["10.67.2.1/32"]),
        wrong("agents.a2.agent_prefixes", ["10.66.1.1/32"]),  # a1's
        wrong("agents.a2.agent_data_port", 70000),
        wrong("agents.a2.agent_tun_mtu", "jumbo"),
        wrong("agents.a2.agent_second_data_interface", "wgm-data"),
        wrong("agents.a2.agent_batch", "half"),
        wrong("agents.a2.agent_map_server_group", "servers"),
    ],
)
def test_a_wrong_variable_is_named(control: ControlHost, path: str, value: Any) -> None:
    group, *hosts, name = path.split(".")
    inventory = good(control)
    place = inventory["all"]["vars"] if group == "all" else None
    if place is None:
        place = inventory["all"]["children"][group]["hosts"][hosts[0]]
    if value is None:
        del place[name]
    else:
        place[name] = value
    stops(control, inventory, name)


def test_a_host_in_both_groups_is_named(control: ControlHost) -> None:
    inventory = good(control)
    inventory["all"]["children"]["agents"]["hosts"]["ms1"] = {"agent_prefixes": ["10.66.9.1/32"]}
    stops(control, inventory, "ms1 is in map_servers and in agents")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("add_server", "server: say -e server=NAME, one of ms1, ms2, ms3"),
        ("remove_server", "server: say -e server=NAME, one of ms1, ms2, ms3"),
        ("replace_server", "server: say -e server=NAME, one of ms1, ms2, ms3"),
        ("revoke", "peer: say -e peer=NAME"),
        ("backup", "backup_dir: say where"),
        ("restore", "backup_dir: say where"),
        ("uninstall", "confirm: "),
    ],
)
def test_a_playbook_says_what_it_wants_to_be_told(
    control: ControlHost, name: str, says: str
) -> None:
    stops(control, good(control), says, name)


def stops(control: ControlHost, inventory: dict[str, Any], says: str, name: str = "deploy") -> None:
    played = control.play(inventory, name)
    assert played.code == 2, played.output
    assert says in played.output
    assert "unreachable=1" not in played.output, "a host was asked before the inventory was judged"
